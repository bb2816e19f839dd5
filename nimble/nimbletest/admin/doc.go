// Package admin lets people and programs change a simulated Nimble account over HTTP, while something else reads it.
//
// [New] makes an [net/http.Handler] for the paths below /admin/, which Nimble does not have: beside the account in one server it takes nothing away. Everything is JSON.
// What it does is what package nimbletest can do to an account; the names are those of that package, in small letters.
//
// # Contacts
//
//	GET    /admin/contacts?search=&tag=&standing=&offset=&limit=   a listing, last changed first; standing is visible, unlisted, hidden,
//	                                                               deleted, gone or any
//	GET    /admin/contacts/{id}                                    one, with its document, also when it is gone
//	GET    /admin/ids                                              the ids of all that can be seen: the truth, whatever the index has of it
//	POST   /admin/contacts                                         make one: record_type, invent, and content as for an edit
//	PATCH  /admin/contacts/{id}                                    edit one
//	PUT    /admin/contacts/{id}                                    store a document as it is
//	DELETE /admin/contacts/{id}                                    delete one
//
// The content of a contact is any of: fields (by name: a text, a list of texts or of objects with value, modifier, label, is_primary and extra_value; null
// removes the field), tags, add_tags, remove_tags, starred, owner_id, privacy ("everyone", "owner" or the API's object) and keys (any key of the contact object, as JSON).
// With silent an edit leaves updated alone.
//
// # Actions on many
//
// Each takes a selection, one of: id, ids, count, share (0.5 or "50%"), tagged, search, or all.
//
//	POST /admin/edit      content
//	POST /admin/tag       tags; also /admin/untag
//	POST /admin/star      starred, true unless it says false
//	POST /admin/touch     moves updated and nothing else; /admin/times sets created and updated
//	POST /admin/delete
//	POST /admin/hide      makes contacts private to others: gone from listings and by id; by_id is how the latter is answered: empty, 403 or 404
//	POST /admin/vanish    the same for a share of the account; by_id "found" leaves them readable by id
//	POST /admin/restore   brings back what was deleted, hidden or lost; count, share and all mean what is gone
//	POST /admin/spoil     shows other bytes (shown) in place of contacts; /admin/mend ends that
//
// Without a selection: POST /admin/merge (survivor, loser), /admin/import (count), /admin/rename-tag and /admin/rename-user (from, to), /admin/count-down.
//
// # The API itself
//
//	GET, PATCH, DELETE /admin/behaviour   how the account answers; PATCH leaves alone what it does not name, DELETE goes back to the default
//	GET, POST, DELETE  /admin/faults      what goes wrong: endpoint, status, retry_after, delay, body_delay, reset, truncate, html, body, times
//	GET, PUT           /admin/key         key, refused
//	GET, DELETE        /admin/requests    what was asked: counters by endpoint and status, and the last requests
//	GET                /admin/journal     what was done
//	GET                /admin/status      all of this in short
//
// # Answers
//
// What was done is said in words, with the number and the ids of the contacts: {"done": "deleted 3 contacts", "count": 3, "ids": [...]}. What was not done has a
// status of 400 or more and {"error": "..."}. Nothing is done by halves: an unknown id among many refuses them all.
//
// # Who may
//
// Anybody who reaches the port, without a key: it is for a simulated account on a developer's machine. Pages of other sites, which reach that port through the
// developer's browser, are refused.
package admin
