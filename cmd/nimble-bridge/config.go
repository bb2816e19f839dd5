package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"
	"go.uber.org/zap/zapcore"

	"nimble-bridge/nimble"
	"nimble-bridge/publisher/hook"
)

// config is everything an operator can set: one field for each environment variable, in the order of the README's table. The tag default is the
// value of a variable that is not set, accepts completes "want …" where a value does not fit, and desc is for the table and -help. A
// variable tagged secret is never shown, one tagged "url" only without a password.
type config struct {
	APIKey       string        `envconfig:"NIMBLE_API_KEY" secret:"true" desc:"the API key; required to run" accepts:"an API key without white space"`
	APIKeyFile   string        `envconfig:"NIMBLE_API_KEY_FILE" desc:"file with the API key, read again when it changes" accepts:"a readable file that holds nothing but the value"`
	BaseURL      string        `envconfig:"NIMBLE_BASE_URL" secret:"url" default:"https://app.nimble.com" desc:"origin of the Nimble API" accepts:"an origin such as https://app.nimble.com"`
	Account      string        `envconfig:"NIMBLE_ACCOUNT" desc:"account token in subjects and keys; empty: the key's company_id" accepts:"letters, digits, - and _"`
	RateLimit    float64       `envconfig:"NIMBLE_RATE_LIMIT" default:"5" desc:"requests a second, at most" accepts:"a number above 0"`
	Timeout      time.Duration `envconfig:"NIMBLE_TIMEOUT" default:"30s" desc:"time for one request, body included" accepts:"a duration above 0 such as 30s or 1m"`
	PerPage      int           `envconfig:"NIMBLE_PER_PAGE" default:"100" desc:"contacts a request, 1 to 100" accepts:"a whole number from 1 to 100"`
	NATSURL      natsURLs      `envconfig:"NATS_URL" secret:"url" desc:"NATS server URLs, comma separated; empty: the embedded server" accepts:"URLs such as nats://127.0.0.1:4222, comma separated"`
	Creds        string        `envconfig:"NATS_CREDS" desc:"NATS .creds file" accepts:"a readable file"`
	NKey         string        `envconfig:"NATS_NKEY" desc:"file with an nkey seed" accepts:"a readable file"`
	User         string        `envconfig:"NATS_USER" desc:"NATS user, with NATS_PASSWORD"`
	Password     string        `envconfig:"NATS_PASSWORD" secret:"true" desc:"NATS password"`
	PasswordFile string        `envconfig:"NATS_PASSWORD_FILE" desc:"file with the NATS password, read again when it changes" accepts:"a readable file that holds nothing but the value"`
	Token        string        `envconfig:"NATS_TOKEN" secret:"true" desc:"NATS token"`
	TokenFile    string        `envconfig:"NATS_TOKEN_FILE" desc:"file with the NATS token, read again when it changes" accepts:"a readable file that holds nothing but the value"`
	TLSCA        string        `envconfig:"NATS_TLS_CA" desc:"PEM file of the authority that signed the NATS servers' certificates" accepts:"a readable file"`
	TLSCert      string        `envconfig:"NATS_TLS_CERT" desc:"PEM file of the client certificate" accepts:"a readable file"`
	TLSKey       string        `envconfig:"NATS_TLS_KEY" desc:"PEM file of the client certificate's key" accepts:"a readable file"`
	Stream       string        `envconfig:"NATS_STREAM" default:"NIMBLE" desc:"stream of the events" accepts:"a name of letters, digits, - and _"`
	Prefix       string        `envconfig:"NATS_SUBJECT_PREFIX" default:"nimble" desc:"first token(s) of every subject" accepts:"tokens of letters, digits, - and _, joined by dots"`
	Bucket       string        `envconfig:"NATS_BUCKET" default:"nimble-contacts" desc:"key-value bucket with the latest event of each contact" accepts:"a name of letters, digits, - and _"`
	Replicas     int           `envconfig:"NATS_REPLICAS" default:"1" desc:"replicas of the stream and the buckets" accepts:"a whole number from 1 to 5"`
	MaxAge       time.Duration `envconfig:"NATS_STREAM_MAX_AGE" default:"0" desc:"age at which the stream drops events; 0 keeps them" accepts:"0 or a duration such as 8760h"`
	MaxBytes     int64         `envconfig:"NATS_STREAM_MAX_BYTES" default:"-1" desc:"size limit of the stream in bytes; -1 for none" accepts:"-1 or a number of bytes above 0"`
	Manage       bool          `envconfig:"NATS_MANAGE" default:"true" desc:"create and update stream and buckets; false: they must exist and fit" accepts:"true or false"`
	EmbeddedDir  string        `envconfig:"EMBEDDED_NATS_DIR" default:"nimble-bridge-data" desc:"where the embedded server stores its streams" accepts:"a directory"`
	EmbeddedAddr string        `envconfig:"EMBEDDED_NATS_ADDR" default:"127.0.0.1:4222" desc:"where the embedded server listens" accepts:"host:port such as 127.0.0.1:4222"`
	Interval     time.Duration `envconfig:"POLL_INTERVAL" default:"10s" desc:"time between polls" accepts:"a duration above 0 such as 10s or 5m"`
	Overlap      time.Duration `envconfig:"POLL_OVERLAP" default:"2m" desc:"how long after a contact's updated a poll still looks for it" accepts:"0 or a duration such as 30s or 5m"`
	Reconcile    time.Duration `envconfig:"RECONCILE_INTERVAL" default:"15m" desc:"time between reconciliations; 0 turns them off" accepts:"0 or a duration such as 15m or 1h"`
	DeleteLimit  deleteLimit   `envconfig:"DELETE_LIMIT" default:"20,5%" desc:"deletions published from one reconciliation, at most: count, share or the larger of both" accepts:"a count, a percentage or both, such as 20 or 5% or 20,5%"`
	HTTPAddr     string        `envconfig:"HTTP_ADDR" default:"127.0.0.1:8080" desc:"health, metrics and status; empty turns them off" accepts:"host:port such as 127.0.0.1:8080, or nothing"`
	HookKey      string        `envconfig:"HOOK_SECRET" secret:"true" desc:"secret of hook for signing webhooks, whsec_… in base64; several with white space between all sign" accepts:"base64 of 24 to 64 bytes, usually after whsec_"`
	HookKeyFile  string        `envconfig:"HOOK_SECRET_FILE" desc:"file with the secrets of hook, read again at each call" accepts:"a readable file that holds nothing but secrets"`
	LogLevel     logLevel      `envconfig:"LOG_LEVEL" default:"info" desc:"debug, info, warn, error" accepts:"debug, info, warn or error"`
	LogFormat    logFormat     `envconfig:"LOG_FORMAT" default:"auto" desc:"json, console; auto: console on a terminal, JSON otherwise" accepts:"auto, json or console"`
}

// emptyCounts names the variables for which an empty value is a value of its own. Everywhere else it is the same as none, because
// compose files and templates set variables that they have no value for.
var emptyCounts = []string{"HTTP_ADDR"}

// problem is one thing that is wrong with the configuration.
type problem struct{ text, hint string }

// configError lists everything that is wrong with the configuration.
type configError []problem

// Error returns one line for each problem.
func (e configError) Error() string {
	lines := make([]string, len(e))
	for i, p := range e {
		lines[i] = p.text
	}
	return strings.Join(lines, "\n")
}

// readConfig reads the configuration from the environment and checks it. The error is a configError with every problem there is.
func readConfig() (*config, error) {
	c, found := inspectConfig()
	return c.unless(found)
}

// readClientConfig is readConfig for commands that talk to NATS and not to Nimble: they need no API key.
func readClientConfig() (*config, error) {
	c, found := inspectConfig()
	return c.unless(slices.DeleteFunc(found, func(f finding) bool { return strings.HasPrefix(f.name, keyVariable) }))
}

// keyVariable is the variable of the API key, and what the one for its file begins with.
const keyVariable = "NIMBLE_API_KEY"

// inspectConfig reads the configuration and returns what is wrong with it beside it, in the order of the variables.
func inspectConfig() (*config, []finding) {
	c, found := parseConfig()
	found = append(found, c.check(found)...)
	order := variables()
	slices.SortStableFunc(found, func(a, b finding) int {
		return slices.Index(order, a.name) - slices.Index(order, b.name)
	})
	return c, found
}

// unless returns the configuration unless something is wrong with it.
func (c *config) unless(found []finding) (*config, error) {
	if len(found) == 0 {
		return c, nil
	}
	problems := make(configError, len(found))
	for i, f := range found {
		problems[i] = f.problem
	}
	return nil, problems
}

// finding is a problem and the variable it is about.
type finding struct {
	name string
	problem
}

// parseConfig takes each variable on its own to envconfig, which stops at the first that it cannot read.
func parseConfig() (*config, []finding) {
	c := new(config)
	var found []finding
	fields := reflect.ValueOf(c).Elem()
	for i := range fields.NumField() {
		field := fields.Type().Field(i)
		name := field.Tag.Get("envconfig")
		if value, set := os.LookupEnv(name); set && value == "" && !slices.Contains(emptyCounts, name) {
			// Under a name that no variable has, the default comes out.
			field.Tag = reflect.StructTag(fmt.Sprintf(`envconfig:"%s=" default:%q`, name, field.Tag.Get("default")))
		}
		one := reflect.New(reflect.StructOf([]reflect.StructField{field}))
		if err := envconfig.Process("", one.Interface()); err != nil {
			found = append(found, misfit(name))
			continue
		}
		fields.Field(i).Set(one.Elem().Field(0))
	}
	return c, found
}

// misfit says that the value of a variable is not one it accepts.
func misfit(name string) finding {
	tag := tagOf(name)
	value, _ := os.LookupEnv(name)
	given := strconv.Quote(value)
	switch tag.Get("secret") {
	case "true":
		given = "not usable"
	case "url":
		given = strconv.Quote(redactURLs(value))
	}
	return finding{name, problem{text: fmt.Sprintf("%s is %s, want %s", name, given, tag.Get("accepts"))}}
}

// redactURLs takes the passwords out of a list of URLs. What cannot be read as a URL may be a password as a whole, from the @ back.
func redactURLs(list string) string {
	parts := strings.Split(list, ",")
	for i, part := range parts {
		at := strings.LastIndexByte(part, '@')
		if at < 0 {
			continue
		}
		// What looks like a scheme and is none may be a part of the password.
		parts[i] = urlScheme.FindString(part[:at]) + "…" + part[at:]
	}
	return strings.Join(parts, ",")
}

var (
	urlScheme = regexp.MustCompile(`(?i)^\s*(nats|tls|wss?|https?)://`)

	word   = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
	tokens = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)
)

// check finds the values that can be read and make no sense, alone or together. Variables that could not be read are known already.
func (c *config) check(unread []finding) []finding {
	var found []finding
	known := func(name string) bool {
		same := func(f finding) bool { return f.name == name }
		return slices.ContainsFunc(unread, same) || slices.ContainsFunc(found, same)
	}
	want := func(name string, ok bool) {
		if !ok && !known(name) {
			found = append(found, misfit(name))
		}
	}
	complain := func(name, hint, format string, args ...any) {
		if !known(name) {
			found = append(found, finding{name, problem{text: fmt.Sprintf(format, args...), hint: hint}})
		}
	}

	if _, err := nimble.NewClient(c.BaseURL, "key"); err != nil {
		want("NIMBLE_BASE_URL", false)
	}
	want("NIMBLE_ACCOUNT", c.Account == "" || word.MatchString(c.Account))
	want("NIMBLE_RATE_LIMIT", c.RateLimit > 0 && !math.IsInf(c.RateLimit, 0))
	want("NIMBLE_TIMEOUT", c.Timeout > 0)
	want("NIMBLE_PER_PAGE", c.PerPage >= 1 && c.PerPage <= 100)
	want("NATS_STREAM", word.MatchString(c.Stream))
	want("NATS_SUBJECT_PREFIX", tokens.MatchString(c.Prefix))
	want("NATS_BUCKET", word.MatchString(c.Bucket))
	want("NATS_REPLICAS", c.Replicas >= 1 && c.Replicas <= 5)
	want("NATS_STREAM_MAX_AGE", c.MaxAge >= 0)
	want("NATS_STREAM_MAX_BYTES", c.MaxBytes == -1 || c.MaxBytes > 0)
	want("EMBEDDED_NATS_ADDR", isAddress(c.EmbeddedAddr))
	want("POLL_INTERVAL", c.Interval > 0)
	want("POLL_OVERLAP", c.Overlap >= 0)
	want("RECONCILE_INTERVAL", c.Reconcile >= 0)
	want("HTTP_ADDR", c.HTTPAddr == "" || isAddress(c.HTTPAddr))

	for name, path := range map[string]string{
		"NATS_CREDS": c.Creds, "NATS_NKEY": c.NKey, "NATS_TLS_CA": c.TLSCA, "NATS_TLS_CERT": c.TLSCert, "NATS_TLS_KEY": c.TLSKey,
	} {
		if path == "" {
			continue
		}
		if _, err := readFile(path); err != nil {
			complain(name, "", "%s is %q, which cannot be read: %v", name, path, err)
		}
	}
	for _, s := range []struct{ name, value, file string }{
		{"NIMBLE_API_KEY", c.APIKey, c.APIKeyFile},
		{"NATS_PASSWORD", c.Password, c.PasswordFile},
		{"NATS_TOKEN", c.Token, c.TokenFile},
	} {
		if s.file == "" {
			continue
		}
		if s.value != "" {
			complain(s.name, "unset one of them", "%s and %[1]s_FILE are both set", s.name)
		}
		if _, err := readSecret(s.file); err != nil {
			complain(s.name+"_FILE", "", "%s_FILE is %q, which cannot be used: %v", s.name, s.file, err)
		}
	}
	if c.APIKey == "" && c.APIKeyFile == "" {
		complain("NIMBLE_API_KEY", `set it to an API key of your Nimble account (README, "Getting an API key"), or try "nimble-bridge demo", which needs none`,
			"NIMBLE_API_KEY is not set")
	} else if c.APIKey != "" {
		_, err := nimble.NewClient("https://app.nimble.com", c.APIKey)
		want("NIMBLE_API_KEY", err == nil)
	}
	c.checkNATS(complain)
	if c.HookKey != "" {
		_, err := hook.ParseSecrets(c.HookKey)
		want("HOOK_SECRET", err == nil)
	}
	if c.HookKeyFile != "" {
		if c.HookKey != "" {
			complain("HOOK_SECRET", "unset one of them", "HOOK_SECRET and HOOK_SECRET_FILE are both set")
		}
		if _, err := (&config{HookKeyFile: c.HookKeyFile}).hookSecrets(); err != nil {
			complain("HOOK_SECRET_FILE", "", "HOOK_SECRET_FILE is %q, which cannot be used: %v", c.HookKeyFile, err)
		}
	}
	return found
}

// checkNATS finds settings of the connection that contradict each other.
func (c *config) checkNATS(complain func(name, hint, format string, args ...any)) {
	var ways []string
	for _, way := range []struct {
		name string
		set  bool
	}{
		{"NATS_CREDS", c.Creds != ""},
		{"NATS_NKEY", c.NKey != ""},
		{"NATS_USER", c.User != "" || c.Password != "" || c.PasswordFile != ""},
		{"NATS_TOKEN", c.Token != "" || c.TokenFile != ""},
	} {
		if way.set {
			ways = append(ways, way.name)
		}
	}
	switch {
	case len(ways) > 1:
		complain(ways[1], "keep one way of authentication", "%s are set together", strings.Join(ways, " and "))
	case (c.User == "") != (c.Password == "" && c.PasswordFile == ""):
		complain("NATS_USER", "", "NATS_USER and NATS_PASSWORD belong together, and one of them is not set")
	case (c.TLSCert == "") != (c.TLSKey == ""):
		complain("NATS_TLS_CERT", "", "NATS_TLS_CERT and NATS_TLS_KEY belong together, and one of them is not set")
	}
	if len(c.NATSURL) > 0 {
		return
	}
	if c.TLSCA != "" || c.TLSCert != "" {
		ways = append(ways, "NATS_TLS_CA or NATS_TLS_CERT")
	}
	const hint = "set NATS_URL to your NATS server, or unset the others to use the embedded one"
	if len(ways) > 0 {
		complain("NATS_URL", hint, "NATS_URL is not set but %s is, which the embedded server has no use for", ways[0])
	}
	if c.Replicas > 1 {
		complain("NATS_REPLICAS", hint, "NATS_REPLICAS is %d, but NATS_URL is not set and the embedded server is a single one", c.Replicas)
	}
}

// key returns the API key as it is now.
func (c *config) key() (string, error) { return current(c.APIKey, c.APIKeyFile) }

// password returns the NATS password as it is now.
func (c *config) password() (string, error) { return current(c.Password, c.PasswordFile) }

// token returns the NATS token as it is now.
func (c *config) token() (string, error) { return current(c.Token, c.TokenFile) }

// hookSecrets returns the secrets for signing webhooks as they are now. The error does not name the file.
func (c *config) hookSecrets() ([]hook.Secret, error) {
	text := c.HookKey
	if c.HookKeyFile != "" {
		content, err := readFile(c.HookKeyFile)
		if err != nil {
			return nil, err
		}
		text = string(content)
	}
	return hook.ParseSecrets(text)
}

// current reads a secret's file each time: mounted secrets are replaced in ways that leave a file's times unreliable, and the file is small.
func current(value, file string) (string, error) {
	if file == "" {
		return value, nil
	}
	value, err := readSecret(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	return value, nil
}

// readSecret returns the content of a file without the white space around it. The error does not name the file.
func readSecret(path string) (string, error) {
	content, err := readFile(path)
	if err != nil {
		return "", err
	}
	value := strings.TrimSpace(string(content))
	switch {
	case value == "":
		return "", errors.New("it is empty")
	case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "", errors.New("it holds more than one line")
	}
	return value, nil
}

// largestFile is more than any secret or certificate file has. A device that never ends is read no further.
const largestFile = 1 << 20

// readFile is os.ReadFile with errors that leave out the path, which the reader has just seen.
func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	var content []byte
	if err == nil {
		content, err = io.ReadAll(io.LimitReader(file, largestFile+1))
		_ = file.Close() // It was only read.
	}
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		err = failed.Err
	}
	if err == nil && len(content) > largestFile {
		err = fmt.Errorf("it is larger than %d MiB", largestFile>>20)
	}
	return content, err
}

func isAddress(addr string) bool {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && strconv.FormatUint(n, 10) == port
}

// natsURLs is a list of servers.
type natsURLs []string

// Decode implements [envconfig.Decoder].
func (u *natsURLs) Decode(value string) error {
	*u = nil
	for part := range strings.SplitSeq(value, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		if !strings.Contains(part, "://") {
			part = "nats://" + part
		}
		parsed, err := url.Parse(part)
		if err != nil || parsed.Hostname() == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, parsed.Scheme) {
			return errors.New("not a NATS URL")
		}
		*u = append(*u, part)
	}
	return nil
}

// deleteLimit is how many deletions are believed at once: the larger of a count and a share of the known contacts.
type deleteLimit struct {
	count int
	// share is between 0 and 1.
	share float64
}

// Decode implements [envconfig.Decoder].
func (l *deleteLimit) Decode(value string) error {
	*l = deleteLimit{}
	parts := strings.Split(value, ",")
	if len(parts) > 2 {
		return errors.New("more than a count and a share")
	}
	var counted, shared bool
	for _, part := range parts {
		part = strings.TrimSpace(part)
		if percent, ok := strings.CutSuffix(part, "%"); ok {
			share, err := strconv.ParseFloat(strings.TrimSpace(percent), 64)
			if err != nil || shared || !(share >= 0 && share <= 100) {
				return errors.New("not a share")
			}
			l.share, shared = share/100, true
			continue
		}
		count, err := strconv.Atoi(part)
		if err != nil || counted || count < 0 {
			return errors.New("not a count")
		}
		l.count, counted = count, true
	}
	return nil
}

// logLevel is one of the four levels that the log has.
type logLevel zapcore.Level

// Decode implements [envconfig.Decoder].
func (l *logLevel) Decode(value string) error {
	for _, level := range []zapcore.Level{zapcore.DebugLevel, zapcore.InfoLevel, zapcore.WarnLevel, zapcore.ErrorLevel} {
		if strings.EqualFold(value, level.String()) {
			*l = logLevel(level)
			return nil
		}
	}
	return errors.New("not a level")
}

// logFormat is how log lines are written.
type logFormat string

// Decode implements [envconfig.Decoder].
func (f *logFormat) Decode(value string) error {
	value = strings.ToLower(value)
	if !slices.Contains([]string{"auto", "json", "console"}, value) {
		return errors.New("not a format")
	}
	*f = logFormat(value)
	return nil
}

// variables returns the names of all variables, in the order of the struct.
func variables() []string {
	var names []string
	for field := range reflect.TypeFor[config]().Fields() {
		names = append(names, field.Tag.Get("envconfig"))
	}
	return names
}

func tagOf(name string) reflect.StructTag {
	for field := range reflect.TypeFor[config]().Fields() {
		if field.Tag.Get("envconfig") == name {
			return field.Tag
		}
	}
	return ""
}

// injected matches the variables that Kubernetes puts into every container for each service around, among them ones called nats or nimble-bridge.
var injected = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_\d+_.+)?)$`)

// misspelt returns, for each variable that is set and looks like one of ours but is none, its name and the one that was probably meant.
func misspelt(environ []string) map[string]string {
	known := variables()
	found := make(map[string]string)
	for _, line := range environ {
		name, _, _ := strings.Cut(line, "=")
		if slices.Contains(known, name) || injected.MatchString(name) {
			continue
		}
		best, distance := "", 3
		for _, k := range known {
			if d := editDistance(strings.ToUpper(name), k); d < distance {
				best, distance = k, d
			}
		}
		if best != "" && len(name) > len("LOGGER") || strings.HasPrefix(name, "NIMBLE_") {
			found[name] = best
		}
	}
	return found
}

// editDistance counts the letters to insert, delete or replace to turn one text into another.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
