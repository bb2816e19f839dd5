// Package hook tells others of contact events: an HTTP endpoint by Standard Webhooks, or a command. Both are a [consumer.Handler], so that order, retries and dead letters are those of
// package consumer.
//
//	endpoint := &hook.Endpoint{URL: u, Secrets: hook.Fixed(secret)}
//	err := consumer.Run(ctx, js, consumer.Config{Durable: "crm"}, condition.Filter(endpoint.Call))
//
// # Webhooks
//
// An [Endpoint] posts each event as it is stored, one CloudEvent in structured mode, signed as https://www.standardwebhooks.com says: webhook-id is the event's id, the same at every try, so that
// a receiver recognises what it has had; webhook-timestamp the time of the try; webhook-signature has one signature for each secret. A 2xx answer is success. 410 Gone ends the run with a
// [*GoneError]; any other answer, and none in time, is tried again, after what Retry-After asks for. Redirects are not followed: the event and its signature go to the configured
// URL and nowhere else.
//
// # Commands
//
// A [Command] gets the event on its standard input and the facts about it in environment variables. Exit code 0 is success, [ExitRefused] makes the event a dead letter at once, anything else is tried
// again. What takes too long is ended with all processes it has started.
//
// # Conditions
//
// A [Condition] is an expression over an event, such as
//
//	summary.tags contains "hot" and changed("fields.lead status")
//
// in the language of https://expr-lang.org, checked when it is compiled. See [Compile] for what it can ask for.
package hook
