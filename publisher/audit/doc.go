// Package audit keeps an append-only log of everything on an event stream, one line of JSON for each message, each line chained to the one before by its hash, and
// proves later that such a log is complete and untouched. [Run] writes one, [Verify] proves one, [Redact] removes what it holds of a person.
//
// # What it promises
//
//   - Every message of the stream is one line: contact events, receipts of reconciliations, notices of rejected records, and whatever else
//     somebody has stored there. None is missing and none stands twice, whenever the auditor, the machine or the server was stopped.
//   - A message is acknowledged once its line is on the disk: written, synced, and the file's name synced with its directory. What has come by the time the disk is ready
//     again is the next batch, with one sync and one acknowledgement for all of it.
//   - The log itself says where to go on, not what the server remembers. Every session, after a start as after an interrupted connection, makes the
//     consumer anew behind the last line. So a log that was restored from a backup, or that ends earlier for any reason, is completed from the stream.
//   - What a crash has torn at the end is taken back. Any other damage to the last file is not taken for the work of a crash: the auditor refuses to go on with it.
//   - One auditor writes to a folder at a time.
//   - Where messages are not to be had, a line says so: see the remarks below.
//
// A full disk, or one that fails, ends [Run] with a [*WriteError]; nothing was acknowledged that is not in the log. Started again, it
// goes on where the log ends.
//
// # Files
//
// The files are named audit-<number>-<day>.jsonl: numbers count from 1 without a gap, in eight digits, so that names sort as the files follow each other. A new one
// is begun when the last has reached its size, and with the first message of another UTC day, by the time at which the stream stored it. Closed files may be
// compressed (.jsonl.gz), here or with gzip by hand; all functions read both.
//
// # Lines
//
// A line ends with a line feed and is one JSON object. What it says comes first, then the chain, then, for messages, the event:
//
//	{"seq":17,"stored":"2026-03-01T10:15:12.031Z","subject":"nimble.acme.contact.updated.6f10a0c2d4e5b6a7c8d9e0f1",
//	 "headers":{"Nats-Msg-Id":"4c1f…","Nimble-Revision":"7","Nimble-Type":"updated", …},
//	 "sha256":"…64 digits…","prev":"…64 digits…","hash":"…64 digits…","event":{"specversion":"1.0", …}}
//
// (without the line breaks shown here). Seq is the message's sequence in the stream, stored when the server stored it, headers are the event's id, KV-Operation
// and all that begin with Nimble-. The event is the message's body, byte for byte, except that line breaks between its tokens are spaces. A body that is no JSON object
// in UTF-8, which the bridge never writes, stands there as a string with its base64.
//
// Each file begins with a line that names the log: file (its number), format (1), log (an id, made by chance), stream, created (when the stream was made), first (the sequence
// that is next), content (whether events are kept in this file). Other lines are remarks, with the time at which they were noted:
//
//	{"gap":{"from":18,"to":25,"reason":"deleted"},"noted":"…", …       those sequences had no message left when the auditor came to them
//	{"rewound":{"from":46,"to":30},"noted":"…", …                     the stream lost its end to a power failure; what was audited after 30 is void
//	{"anew":{"created":"…","after":46},"noted":"…", …                 the stream was deleted and made again; sequences begin anew
//	{"redacted":{"contact":"6f10…"},"noted":"…", …                    this contact's events were removed from the lines before
//
// A gap's reason is "before_first" where the stream begins later, since an age limit or a purge removed its beginning, and "deleted" where messages are gone from
// within it, as the erasure of a contact does. Sequences of messages and gaps together count 1, 2, 3 … without any missing.
//
// # The chain
//
//   - hash is the SHA-256 of the line's bytes from the first up to, and without, the first occurrence of ,"hash":" in it.
//   - prev, which those bytes include, is the hash of the line before, across files; 64 zeros in the first line of the log.
//   - sha256 is the SHA-256 of the bytes of the event's value as it stands in the line.
//
// All three are 64 lower-case hexadecimal digits. Bytes are hashed and not a canonical form of JSON, for two reasons: nothing can be changed then that a canonical form
// does not see (RFC 8785 takes 9007199254740993 and 9007199254740992 for the same number, and cannot write 1e400 at all), and any tool that can compute a SHA-256 can
// verify a log. testdata/verify.py does it in a dozen lines of Python; for one line in a shell:
//
//	sed -n 17p audit-00000001-20260301.jsonl | sed 's/,"hash":".*//' | tr -d '\n' | sha256sum
//
// The chain covers an event by its hash. So an event can be taken out of a line without breaking the chain, and what is left still proves that there was one, and which.
//
// # What verification proves
//
// [Verify] checks, with everything it finds in its place:
//
//   - files: none is missing, doubled or in another's place.
//   - chain: every line's hash is right and is the next line's prev. It shows a changed byte, and a line that was removed, inserted, repeated or moved.
//   - content: every event is the one whose hash its line has. An event may be missing only where the file keeps none, or a later line says that it was redacted.
//   - sequence: nothing is missing between the first message and the last.
//   - revisions: each contact's events are numbered 1, 2, 3 …, except across gaps.
//   - receipts: when the bridge found Nimble and the stream in agreement on so many contacts, as many were alive by the log. Where gaps have left out
//     n messages, the numbers may differ by n; and contacts that were just erased may still be counted, because the bridge hears of an erasure later.
//   - stream, with a connection: every message that the stream has, and every one that the log has, is the same on the other side. The log may have more where
//     the stream reaches back less far, or where a contact's events are gone and its deletion came later.
//   - end, with a connection: the log reaches what its consumer has acknowledged.
//   - anchors: the log has a line with each given hash.
//
// # What it cannot prove
//
// Who can write to the folder and knows this description can make up a log that holds against itself: changing lines and computing every hash after them again,
// or cutting off the end, leaves no trace in the files. Both show against the stream, for as long as it has those messages. They show for ever against an anchor: keep the head
// hash, which every verification prints and the auditor logs when it closes a file and when it stops, in a place that whoever can write to the folder cannot. A log
// with an anchor in it is untouched up to there.
//
// Old files may be moved elsewhere, oldest first. The hash that the last of them ended with is the anchor with which the others still verify.
//
// # Personal data
//
// The log is a copy of people's data, in files that only its owner can read (0600 in a directory with 0700). Erasing a contact from NATS does not reach it. There are
// two ways to have a log and erase:
//
//   - [Config.WithoutContent] keeps events out from the start, except receipts and what erasures leave. The log then proves what happened to which contact id and when, and that
//     the stream's events are those; it has no names and no values.
//   - [Redact] takes a contact's events out of a log, and notes that. Run it with the auditor stopped, after the erasure, whose own event says erased.
//
// In both cases contact ids, times, the names of changed fields and hashes remain. Nobody can compute an event from its hash; whoever has a copy of
// one can tell that it was there.
//
// # Permissions
//
// The NATS user needs, for the stream NIMBLE and the inbox prefix of [publisher.InboxPrefix], and no right to publish events:
//
//	publish   $JS.API.STREAM.INFO.NIMBLE
//	          $JS.API.STREAM.MSG.GET.NIMBLE
//	          $JS.API.CONSUMER.CREATE.NIMBLE.>
//	          $JS.API.CONSUMER.DELETE.NIMBLE.*
//	          $JS.API.CONSUMER.INFO.NIMBLE.*
//	          $JS.API.CONSUMER.MSG.NEXT.NIMBLE.*
//	          $JS.ACK.NIMBLE.>
//	subscribe _INBOX_NIMBLE_BRIDGE.>
//
// The consumer is called "audit-" and the log's id unless [Config.Durable] says otherwise: it belongs to the log, wherever the folder is moved. Two auditors that write
// to copies of one folder would take it from each other; their logs stay right, and they complain.
package audit
