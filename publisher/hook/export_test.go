package hook

// ParseRetryAfter is retryAfter for tests.
var ParseRetryAfter = retryAfter
