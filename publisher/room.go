package publisher

import (
	"slices"
	"sync"

	"github.com/nats-io/nats.go"
)

// pieceSize is how much memory for bodies is taken at once, for about a hundred of them.
const pieceSize = 256 << 10

// room is memory for messages on their way. It is taken piece by piece, so that nothing moves while a batch grows, and used again when the messages are
// stored: a batch of a thousand would otherwise leave megabytes of garbage.
type room struct {
	pieces []*[pieceSize]byte
	// free is what is left of the last piece.
	free []byte
	// headers are those of the first messages, used says of how many.
	headers []nats.Header
	used    int
}

// spareRooms and sparePieces have no message in them.
var spareRooms, sparePieces sync.Pool

func takeRoom() *room {
	if r, ok := spareRooms.Get().(*room); ok {
		return r
	}
	return &room{}
}

// body has write append a body, of about the given size, and returns it.
func (r *room) body(size int, write func(dst []byte) []byte) []byte {
	if size > pieceSize {
		return write(make([]byte, 0, size))
	}
	if size > cap(r.free) {
		piece, ok := sparePieces.Get().(*[pieceSize]byte)
		if !ok {
			piece = new([pieceSize]byte)
		}
		r.pieces, r.free = append(r.pieces, piece), piece[:0]
	}
	body := write(r.free)
	if len(body) <= cap(r.free) { // Otherwise it stands elsewhere.
		r.free = r.free[len(body):len(body):cap(r.free)]
	}
	return slices.Clip(body)
}

// header returns an empty one.
func (r *room) header() nats.Header {
	if r.used == len(r.headers) {
		r.headers = append(r.headers, make(nats.Header, headersAtMost))
	}
	h := r.headers[r.used]
	clear(h)
	r.used++
	return h
}

// headersAtMost is how many headers an event's message has: those of the event and those by which the server checks it and puts batches together.
const headersAtMost = 16

// clear forgets the messages.
func (r *room) clear() {
	for _, p := range r.pieces {
		sparePieces.Put(p)
	}
	clear(r.pieces)
	for _, h := range r.headers[:r.used] {
		clear(h) // What they hold is not held up.
	}
	r.pieces, r.free, r.used = r.pieces[:0], nil, 0
}

func (r *room) giveBack() {
	r.clear()
	spareRooms.Put(r)
}
