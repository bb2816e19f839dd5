// Package nimbletest simulates a Nimble CRM account, for developing and testing programs that read one.
//
// An [Account] answers the contacts part of Nimble's REST API: listings with paging, sorting and queries,
// listings of ids, reading by id, and the credential check. What the test does to it happens as it would in Nimble's own user
// interface: contacts are created, imported, edited, merged, hidden, deleted and restored, and then show up, or
// fail to, the way the real API has been seen to show them. Where Nimble's documents are silent, the zero
// [Behaviour] is what the evidence favours, and its fields switch every other possibility on.
//
// # Reaching the account
//
//   - In a test, most of all in a testing/synctest bubble: [New] and [Account.Transport]. No sockets, no
//     goroutines, no timers; the bubble's clock is the account's.
//   - Over a real connection: [NewServer] and its URL.
//   - In a server of one's own: an Account is an [http.Handler].
//
// The paths are Nimble's, below /api/v1; the key is "test-key" unless [WithKey] says otherwise.
//
// # Filling it
//
// [WithContacts] invents people and companies of many cultures: names, employments, addresses, tags, about two
// kilobytes of JSON each, the same for the same seed. They need no memory until somebody edits them, so a
// million contacts are no trouble. [Account.Put] takes a document of the test's own, [Account.PutRaw] anything at all, also
// what is no contact and no JSON.
//
// # Changing it
//
//   - Ordinary life: [Account.Create], [Account.Edit], [Account.Delete], [Account.Merge].
//   - Many contacts with one and the same timestamp: [Account.Import].
//   - A change that `updated` does not tell of: [Account.EditSilently], [Account.RenameTag]. `updated` without a change:
//     [Account.Touch]. Noise that is no change: [Account.CountDown], [Account.RenameUser].
//   - Contacts that leave and come back: [Account.Hide] and [Account.Show], [Account.Delete] and [Account.Restore]; whatever took
//     them away, [Account.Reappear]. [Account.Pick] chooses a part of the account for it.
//   - Contacts that only listings lose: [Account.Unlist].
//   - Records that are none for a while: [Account.Spoil] and [Account.Mend].
//   - Records dated in the future or the past: [Account.SetTimes].
//   - Changes between two pages of one reader: [Account.OnRequest] runs a function before each answer.
//
// # Making it difficult
//
//   - A search index that follows late, or out of order: IndexLag and LagOf of [Behaviour].
//   - An API that refuses or ignores a sort or a range, or reads its bounds otherwise: UpdatedSort, Range,
//     RangeForms, ExclusiveLower and others.
//   - Capped or approximate totals, deep pages refused, other answers for missing ids: further fields there.
//   - A network or a server that fails: [Account.Inject] with a [Fault].
//   - A key that stops working: [Account.RefuseKey], [Account.RotateKey].
//
// # Looking at the truth
//
// [Account.IDs], [Account.Contact], [Account.Times] and [Account.Len] tell what is in the account, whatever the
// index has of it; [Account.Look], [Account.LookAt] and [Account.Census] show also what is gone from it; [Account.Journal] tells what was done
// to it; [Account.Requests] and [Account.Served] what was asked of it.
//
// Package admin does all this to an account over HTTP, by hand or from programs in any language.
//
// # What holds of time and order
//
// Each edit gets the account's now in microseconds as its `updated`, and at least a microsecond more than the
// edit before it, also while the clock stands still. Only imports, documents of the test's own and SetTimes make equal
// times. An id begins with the second of its contact's creation.
//
// Reading by id shows the newest state at once. Listings, ids, totals and queries show the index, rows in the
// version that the index has. Two things are shown at once everywhere: names of users and the
// day count of reminders, which belong to the account as a whole.
//
// Contacts with equal sort keys come in an order that is the same in each request but follows neither id nor age,
// and descending is ascending backwards; so does a listing without sort. Nimble promises nothing there.
// UnstableTies makes ties differ from request to request.
//
// # What it does not do
//
// It serves no writes, no fields catalogue, no deals, notes or activities. Of the query language it evaluates created, updated, _id,
// record type, tag, email, phone, names, domain and the other text fields of a contact, joined by and, or and not;
// everything else is answered with the 409 that Nimble gives for a field or operator it does not know.
package nimbletest
