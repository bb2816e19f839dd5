package audit

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"go.uber.org/zap"

	"nimble-bridge/publisher/event"
)

// Redact removes what a log holds of contacts, by their ids: the events with their names, addresses and changes, and the notices of rejected records. What is left is that
// there was an event, when and of which kind, and its hash; the chain stays whole, and a line of its own says for each contact that this was done. It returns how many
// events were removed. No auditor may be writing to the log meanwhile.
func Redact(ctx context.Context, dir string, contacts []string, log *zap.Logger) (removed int, err error) {
	files, err := list(dir)
	if err != nil {
		return 0, &DirError{Dir: dir, Err: err}
	}
	if len(files) == 0 {
		return 0, &DirError{Dir: dir, Err: ErrNoLog}
	}
	if len(contacts) == 0 {
		return 0, nil
	}
	w, err := openWriter(writerOptions{dir: dir, maxFileSize: DefaultMaxFileSize}, log)
	if err != nil {
		return 0, err
	}
	defer w.close()
	w.opts.content = w.header.content
	// The remark comes first: content that is missing without one is a fault.
	for _, id := range contacts {
		if !event.ValidToken(id) {
			return 0, fmt.Errorf("%q is no contact id", id)
		}
		if err := w.remark(redact{id}.appendFacts); err != nil {
			return 0, err
		}
	}
	if err := w.finish(); err != nil {
		return 0, err
	}
	if files, err = list(dir); err != nil {
		return 0, &DirError{Dir: dir, Err: err}
	}
	for _, f := range files {
		n, err := redactFile(ctx, dir, f, contacts)
		removed += n
		if err != nil {
			return removed, err
		}
	}
	return removed, nil
}

// redactFile replaces a file by one that lacks the contacts' events, if it has any.
func redactFile(ctx context.Context, dir string, f file, contacts []string) (removed int, err error) {
	if removed, err = copyRedacted(ctx, dir, f, contacts, io.Discard); removed == 0 || err != nil {
		return 0, err
	}
	err = replace(dir, f.name, func(to io.Writer) error {
		if !f.compressed() {
			_, err := copyRedacted(ctx, dir, f, contacts, to)
			return err
		}
		z := gzip.NewWriter(to)
		if _, err := copyRedacted(ctx, dir, f, contacts, z); err != nil {
			return err
		}
		return z.Close()
	})
	if err != nil {
		return 0, &WriteError{Dir: dir, File: f.name, Err: err}
	}
	return removed, nil
}

// copyRedacted copies a file without the contacts' events, and counts those.
func copyRedacted(ctx context.Context, dir string, f file, contacts []string, to io.Writer) (removed int, err error) {
	r, err := open(dir, f)
	if err != nil {
		return 0, &DirError{Dir: dir, Err: fmt.Errorf("%s: %w", f.name, err)}
	}
	defer r.close()
	var out, room []byte
	for {
		b, whole, err := r.next()
		if errors.Is(err, io.EOF) {
			return removed, nil
		}
		if err != nil {
			return removed, &DirError{Dir: dir, Err: fmt.Errorf("%s: %w", f.name, err)}
		}
		if err := ctx.Err(); err != nil {
			return removed, err
		}
		out = append(out[:0], b...)
		if l, err := split(b); err == nil && l.content != nil {
			var says *facts
			if says, room, err = l.parse(room); err == nil && concerns(&l, says, contacts) {
				out = out[:len(b)-len(l.content)-len(eventMember)-1]
				out = append(out, '}')
				removed++
			}
		}
		if whole {
			out = append(out, '\n')
		}
		if _, err := to.Write(out); err != nil {
			return removed, err
		}
	}
}

// concerns tells whether a line's content is about one of the contacts.
func concerns(l *line, says *facts, contacts []string) bool {
	if s, err := event.ParseSubject(says.Subject); err == nil {
		return slices.Contains(contacts, s.ContactID) && !isErasure(says.Subject, l.content)
	}
	notice, err := event.DecodeRejected(l.content)
	return err == nil && slices.Contains(contacts, notice.Data.ContactID)
}
