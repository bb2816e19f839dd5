package publisher

import "context"

// ReaderOf returns a reader of what p stores, over the same connection.
func ReaderOf(ctx context.Context, p *Publisher) (*Reader, error) {
	return OpenReader(ctx, p.conn, p.cfg, p.log)
}
