package admin_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"nimble-bridge/nimble/nimbletest"
	"nimble-bridge/nimble/nimbletest/admin"
)

// A server of one's own with an account and its interface, which a test in any language can drive.
func Example() {
	account := nimbletest.New(nimbletest.WithContacts(1000))
	mux := http.NewServeMux()
	mux.Handle("/", account)
	mux.Handle("/admin/", admin.New(account))
	server := httptest.NewServer(mux)
	defer server.Close()

	for _, action := range []struct{ path, body string }{
		{"contacts", `{"fields": {"first name": "Ada", "last name": "Lovelace"}, "tags": ["engine"]}`},
		{"vanish", `{"share": "50%"}`},
		{"restore", `{"all": true}`},
		{"faults", `{"status": 429, "retry_after": "2", "times": 3}`},
	} {
		resp, err := http.Post(server.URL+"/admin/"+action.path, "application/json", strings.NewReader(action.body))
		if err != nil {
			panic(err)
		}
		var answer struct{ Done string }
		err = json.NewDecoder(resp.Body).Decode(&answer)
		_ = resp.Body.Close()
		if err != nil {
			panic(err)
		}
		fmt.Println(answer.Done)
	}
	// Output:
	// created Ada Lovelace
	// took 501 contacts out of sight
	// brought 501 contacts back
	// the next 3 requests to the API suffer the fault
}
