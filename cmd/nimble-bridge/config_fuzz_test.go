package main

import (
	"errors"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// FuzzConfig gives one variable any value. What is refused is refused by name and without its secret, and what is accepted makes sense.
func FuzzConfig(f *testing.F) {
	names := variables()
	seed := func(name string, values ...string) {
		for _, v := range values {
			f.Add(uint8(slices.Index(names, name)), v)
		}
	}
	seed("NIMBLE_API_KEY", "sesame", "with space", "line\nfeed")
	seed("NIMBLE_BASE_URL", "https://app.nimble.com", "http://user:hush@127.0.0.1:1/x?y#z", "ftp://x")
	seed("NIMBLE_RATE_LIMIT", "0.5", "NaN", "+Inf", "1e400", "0x1p-2")
	seed("NIMBLE_TIMEOUT", "30s", "-1s", "9223372036854775807ns", "1h1m", "١s")
	seed("NIMBLE_PER_PAGE", "1", "0x10", "1_0", "101")
	seed("NATS_URL", "nats://a:1, tls://b", "nats://user:hush@[::1]:4222", "://", "nats://%zz", ",")
	seed("NATS_STREAM_MAX_BYTES", "-1", "9223372036854775808")
	seed("NATS_SUBJECT_PREFIX", "a.b", ".a", "a..b", "a.*")
	seed("EMBEDDED_NATS_ADDR", "[::1]:0", ":70000", "a:01", "a:b:c")
	seed("DELETE_LIMIT", "20,5%", "5%,20", "5%,5%", "1e2%", "NaN%", "-0", ",")
	seed("LOG_LEVEL", "WARN", "ERROR ")
	f.Fuzz(func(t *testing.T, which uint8, value string) {
		name := names[int(which)%len(names)]
		if strings.ContainsRune(value, 0) {
			return // No environment can hold it.
		}
		tag := tagOf(name)
		isFile := strings.Contains(tag.Get("accepts"), "file")
		if isFile && (!filepath.IsLocal(value) || strings.Contains(value, "/")) {
			return // Not in this directory; who knows what lies there.
		}
		setenv(t, map[string]string{"NIMBLE_API_KEY": "sesame", name: value})
		c, err := readConfig()
		if err != nil {
			problems, ok := errors.AsType[configError](err)
			if !ok || len(problems) == 0 {
				t.Fatalf("%s=%q: error %T %v", name, value, err, err)
			}
			for _, p := range problems {
				if strings.ContainsAny(p.text, "\r\n") {
					t.Errorf("%s=%q: a problem of several lines: %q", name, value, p.text)
				}
			}
			if !strings.Contains(err.Error(), name) && !strings.HasPrefix(name, "NATS_") {
				t.Errorf("%s=%q: error %v does not name it", name, value, err)
			}
			if tag.Get("secret") == "true" && len(value) > 3 && strings.Contains(err.Error(), value) && !strings.Contains(tag.Get("accepts"), value) && !strings.Contains(name, value) {
				t.Errorf("%s=%q: the error tells the secret: %v", name, value, err)
			}
			return
		}
		if found := c.check(nil); len(found) > 0 {
			t.Errorf("%s=%q is accepted, and checked again it is not: %v", name, value, found)
		}
		if !(c.RateLimit > 0) || c.Timeout <= 0 || c.Interval <= 0 || c.Overlap < 0 || c.Reconcile < 0 || c.MaxAge < 0 || c.PerPage < 1 || c.PerPage > 100 ||
			c.DeleteLimit.count < 0 || !(c.DeleteLimit.share >= 0 && c.DeleteLimit.share <= 1) {
			t.Errorf("%s=%q is accepted as %+v", name, value, c)
		}
		for _, u := range c.NATSURL {
			if parsed, err := url.Parse(u); err != nil || parsed.Host == "" {
				t.Errorf("%s=%q is accepted as %q", name, value, u)
			}
		}
		again, err := readConfig()
		if err != nil || !reflect.DeepEqual(c, again) {
			t.Errorf("%s=%q reads differently the second time: %+v, %v", name, value, again, err)
		}
	})
}

// FuzzRedactURLs looks for a way to get a password shown.
func FuzzRedactURLs(f *testing.F) {
	f.Add("nats://user:", "hush-hush", "@127.0.0.1:4222")
	f.Add("nats://", "hush-hush", "@[::1")
	f.Add("user:", "hush/hush?hush#", "@host,nats://other")
	f.Add("nats://user:", "hush@hush://", "@host")
	f.Add("", "hush-hush://", "@host")
	f.Fuzz(func(t *testing.T, before, password, after string) {
		if len(password) < 8 || strings.Contains(password, ",") || !strings.HasPrefix(after, "@") || strings.Contains(before+after, password) || urlScheme.FindString(password) == password {
			return
		}
		if shown := redactURLs(before + password + after); strings.Contains(shown, password) {
			t.Errorf("%q is shown as %q", before+password+after, shown)
		}
	})
}
