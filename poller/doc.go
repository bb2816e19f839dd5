// Package poller finds out what changed in a Nimble account and in which way, and hands each change to a [Ledger] exactly once.
//
// Start with [New] and [Poller.Run]. The package knows neither HTTP nor NATS: it reads a [Source] (a [nimble-bridge/nimble.Client])
// and appends to a [Ledger] (a publisher on JetStream), and it keeps no state of its own but what the ledger's events say.
//
// # What counts as a change
//
// A contact's significant content: record_type, owner_id, is_important, stages_info, fields, tags, privacy, and of notice and reminder what a person writes.
// It is brought to a normal form, in which null, "", [] and {} are all no value, lists have no order, tags are a set
// of texts, and the JSON inside addresses and employments is compared parsed; [FingerprintOf] hashes that form and [Diff] compares it key by key. Everything else
// moves with the clock, copies other records or depends on who asks: it travels in events, and changing alone it makes none.
//
// # How changes are found
//
// A poll reads the contacts whose `updated` is at or after the settled mark, oldest first, walking by time and never by page number, since page
// numbers shift while people edit. What is seen again is recognised by its fingerprint, so that reading twice costs no event; skipping would.
//
// # When the settled mark moves
//
// A complete poll that began at the time T of Nimble's clock, and whose changes the ledger has acknowledged, settles everything up to T less the overlap: an index that lags
// by no more than the overlap has shown by then what it will show. Where a poll is interrupted, the mark moves as far as was read
// and acknowledged. The mark is saved seldom and always late: it can cost reading again, never a change.
//
// # What cannot be seen
//
// Changes made to one contact between two polls arrive as one. A contact that is deleted vanishes without a word, and content that
// changes without moving `updated` is not found by polling.
package poller
