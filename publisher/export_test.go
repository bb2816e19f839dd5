package publisher

import (
	"context"
	"time"
)

// In tests nothing is as slow as a cluster that lost a node.
func init() { stalledAfter, doubtedAfter = time.Second, 500*time.Millisecond }

// ReaderOf returns a reader of what p stores, over the same connection.
func ReaderOf(ctx context.Context, p *Publisher) (*Reader, error) {
	return OpenReader(ctx, p.conn, p.cfg, p.log)
}
