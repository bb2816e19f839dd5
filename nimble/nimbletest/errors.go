package nimbletest

import (
	"net/http"
	"strconv"
)

// apiError is an error of the API before its body is written.
type apiError struct {
	status   int
	message  string
	field    string // of a validation error
	objectID string // of a missing object
}

// invalid is the 409 for a bad parameter.
func invalid(field, message string) *apiError {
	return &apiError{status: http.StatusConflict, field: field, message: field + ": " + message}
}

func notFound(id string) *apiError {
	return &apiError{status: http.StatusNotFound, objectID: id}
}

// badKey is the answer to a key that the account does not accept.
func badKey(status int) *apiError {
	if status == 0 {
		status = http.StatusForbidden
	}
	return &apiError{status: status, message: "Can't authenticate request"}
}

// failure writes an error the way this account does.
func (b *Behaviour) failure(e *apiError) answer {
	if b.HTMLErrors {
		return htmlAnswer(e.status)
	}
	return jsonAnswer(e.status, e.body(b.ErrorShape))
}

// body writes the JSON that goes with the status.
func (e *apiError) body(shape ErrorShape) []byte {
	switch e.status {
	case http.StatusUnauthorized:
		return []byte(`{"error":"invalid_token","error_description":"The access token provided is invalid or has expired"}`)
	case http.StatusNotFound:
		return append(quote([]byte(`{"object_type":"contact","object_id":`), e.objectID), '}')
	case http.StatusConflict:
		message := string(quote(nil, e.message))
		field := e.field
		if field == "" {
			field = "/"
		}
		key := string(quote(nil, field))
		if shape == ErrorsOld {
			return []byte(`{"message":"Validation error","code":245,"errors":{` + key + `:[{"message":` + message + `,"field_id":null}]}}`)
		}
		return []byte(`{"message":"Validation error","errors":{` + key + `:{"message":` + message +
			`}},"human_readable_error":` + message + `,"code":245,"extra":{}}`)
	}
	b := quote([]byte(`{"message":`), e.message)
	switch e.status {
	case http.StatusPaymentRequired:
		b = append(b, `,"code":108`...)
	case http.StatusInternalServerError:
		b = append(b, `,"code":107`...)
	}
	return append(b, '}')
}

// statusText is the message of an error that has no better one.
func statusText(status int) string {
	if status == http.StatusForbidden {
		return "Can't authenticate request"
	}
	if text := http.StatusText(status); text != "" {
		return text
	}
	return "status " + strconv.Itoa(status)
}
