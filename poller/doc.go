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
// # What happens side by side
//
// While a page is examined the next one is fetched, and what was found before is appended to the ledger: as one batch for all that gathered meanwhile, and a second one is encoded while the
// first is being acknowledged. A contact that is read again before its change is stored waits for that. The memory that this takes does not depend on the account's size.
//
// # When the settled mark moves
//
// A complete poll that began at the time T of Nimble's clock, and whose changes the ledger has acknowledged, settles everything up to T less the overlap: an index that lags
// by no more than the overlap has shown by then what it will show. Where a poll is interrupted, the mark moves as far as was read
// and acknowledged. The mark is saved seldom and always late: it can cost reading again, never a change.
//
// # How deletions are found
//
// A contact that is deleted vanishes without a word. So each poll asks for the account's total as well (twice a second if there are more polls), and when that disagrees, and every [Config.ReconcileInterval], the account is
// reconciled with what is known: Nimble's counts over ranges of `created` are held against the table, a range that differs is halved until it is short, and then its ids
// are listed. Small accounts, and ranges that differ in many places, are listed at once. Beside that a part of the account is read completely each time, so that within a day
// edits are found that moved no `updated`, and that counts are proven against listings; counts over `updated` find what the search index showed too late. Where counts are
// capped, approximate or unsteady, the whole account is listed instead.
//
// Absence proves nothing: every missing contact is asked for by id, twice with [Config.ConfirmAfter] between. Only what is gone both times is published as deleted, and only within
// [Config.DeleteLimit]; otherwise all of it is held until [Poller.ConfirmDeletions], or until the contacts are there again.
//
// What a reconciliation costs in requests, the listing of the part included, at 100 contacts a page (BenchmarkReconcile measures it):
//
//	contacts   pages   0 deleted   1     3     10    100
//	   1,000      10       7      13    20     27     24
//	  20,000     200      11      22    42     87    223
//	 100,000   1,000      35      46    66    136    702
//
// A reconciliation runs in the goroutine of [Poller.Run] and polls in between whenever a poll is due.
//
// # What cannot be seen
//
// Changes made to one contact between two polls arrive as one. When, in one range of a large account, as many contacts come into sight without an edit as go from it, no count
// tells; the part that is read each time finds that within a day. A merge shows as a deletion, with a hint at who may have survived.
package poller
