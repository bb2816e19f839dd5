// Package nimble is a client for the contacts of the Nimble CRM, read through its REST API.
//
// Start with [NewClient], check the key with [Client.Myself], then list with [Client.Contacts]:
//
//	client, err := nimble.NewClient("https://app.nimble.com", key)
//	...
//	recent := nimble.InTheLast(nimble.Updated, time.Hour)
//	for contact, err := range client.Contacts(ctx, nimble.ListOptions{Query: recent, Sort: "updated:asc"}) {
//		...
//	}
//
// The client only reads. It knows contacts, the account's user and nothing else of Nimble, and it keeps no state of an account.
//
// # Contacts are raw JSON
//
// A [Contact] carries the bytes that Nimble sent. Only the id, the record type and the two times are
// interpreted, and those leniently, because Nimble's documents and its answers disagree about types, and new keys appear
// without notice. A record that cannot be understood at all does not spoil its page: see [Page.Malformed].
//
// # Authentication
//
// An API key belongs to a user of the account and shows what that user may see; contacts private to others do not exist for it.
// It is sent as a bearer token, to the configured origin only: a redirect to another host, port or scheme is not followed. It is
// in no URL, and it is removed from every text that becomes part of an error. [WithKeySource] lets a key be replaced while the client runs.
//
// # Rate limits and retries
//
// Nimble publishes no rate limit. The client keeps to [WithRateLimit] requests a second, counting retries. What may go better the next
// time, as [Retryable] tells, is tried again with growing, randomised waits, not shorter than a Retry-After header asks
// for, until [RetryPolicy.MaxElapsed] has passed. Without a retry policy ([WithoutRetry]) each call is one request.
//
// # Errors
//
// What a caller may want to act on has a type: [CredentialsError], [RateLimitError], [ValidationError], [ServerError], [NotJSONError],
// [TruncatedError], [TooLargeError], [TransportError], [StatusError] for any other status, and [RecordError] for a
// single record. Match them with errors.AsType. [ErrNotFound] and [ErrForbidden] tell why [Client.ContactByID] found nothing. When the caller's
// context ends, the error wraps the context's error and none of these. No error contains the key or anything of a contact but its id.
//
// # What it does not do
//
// It does not verify that a listing obeys its query or its order: Nimble ignores parameters that it does not know, and its own
// documents leave gaps. Whoever depends on either has to look at the values returned.
package nimble
