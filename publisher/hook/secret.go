package hook

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Secret is a key that sender and receiver share.
type Secret struct{ key []byte }

const (
	secretPrefix = "whsec_"
	// A secret has so many bytes, says the standard.
	leastSecret, mostSecret = 24, 64
)

// ParseSecret reads a secret as it is handed around: base64, usually with "whsec_" in front. The error does not repeat it.
func ParseSecret(s string) (Secret, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(s, secretPrefix))
	if err != nil {
		return Secret{}, errors.New("it is no base64")
	}
	if len(key) < leastSecret || len(key) > mostSecret {
		return Secret{}, fmt.Errorf("it has %d bytes, and a secret has %d to %d", len(key), leastSecret, mostSecret)
	}
	return Secret{key}, nil
}

// ParseSecrets reads secrets with white space or commas between.
func ParseSecrets(s string) ([]Secret, error) {
	var secrets []Secret
	parts := strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' || r == '\r' })
	for i, part := range parts {
		secret, err := ParseSecret(part)
		if err != nil {
			return nil, fmt.Errorf("secret %d of %d: %w", i+1, len(parts), err)
		}
		secrets = append(secrets, secret)
	}
	if len(secrets) == 0 {
		return nil, errors.New("there is none in it")
	}
	return secrets, nil
}

// NewSecret draws a secret, and returns it as it is handed around.
func NewSecret() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // It never fails.
	return secretPrefix + base64.StdEncoding.EncodeToString(key)
}

// Fixed are secrets that do not change, for [Endpoint.Secrets].
func Fixed(secrets ...Secret) func() ([]Secret, error) {
	return func() ([]Secret, error) { return secrets, nil }
}

// String does not tell the secret.
func (Secret) String() string { return secretPrefix + "…" }

// GoString does not tell the secret.
func (s Secret) GoString() string { return s.String() }

// sign makes the value of webhook-signature: one signature for each secret, so that a receiver may have the old one or the new one while they are changed.
func sign(secrets []Secret, id string, at time.Time, body []byte) string {
	signatures := make([]string, len(secrets))
	for i, s := range secrets {
		mac := hmac.New(sha256.New, s.key)
		mac.Write([]byte(id + "." + strconv.FormatInt(at.Unix(), 10) + "."))
		mac.Write(body)
		signatures[i] = "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	return strings.Join(signatures, " ")
}
