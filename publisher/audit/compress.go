package audit

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.uber.org/zap"
)

// compressClosed compresses the files that are closed, in the background, if that is wanted.
func (w *writer) compressClosed() {
	if !w.opts.compress {
		return
	}
	current := w.header.file // It is written to, and what follows it will be.
	w.compressing.Go(func() {
		w.turn.Lock()
		defer w.turn.Unlock()
		files, err := list(w.opts.dir)
		if err != nil {
			w.log.Warn("audit files not compressed", zap.Error(err))
			return
		}
		for _, f := range files {
			if f.compressed() || f.number >= current {
				continue
			}
			if err := compress(w.quitting, w.opts.dir, f.name); err != nil {
				if w.quitting.Err() == nil {
					w.log.Warn("audit file not compressed; it stays as it is until the next attempt", zap.String("file", f.name), zap.Error(err))
				}
				return
			}
			w.log.Info("audit file compressed", zap.String("file", f.name+gzipSuffix))
		}
	})
}

// compress puts a compressed file in the place of a plain one, after it has proved that it holds the same.
func compress(ctx context.Context, dir, name string) error {
	path := filepath.Join(dir, name)
	plain := sha256.New()
	err := replace(dir, name+gzipSuffix, func(to io.Writer) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // Nothing was written.
		z := gzip.NewWriter(to)
		if _, err := io.Copy(io.MultiWriter(z, plain), reading{ctx, f}); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
		return holds(ctx, filepath.Join(dir, name+gzipSuffix+tempSuffix), plain.Sum(nil))
	})
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return syncDir(dir)
}

// holds checks that a compressed file has the content with the given hash.
func holds(ctx context.Context, path string, sum []byte) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // Nothing was written.
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	h := sha256.New()
	if _, err := io.Copy(h, reading{ctx, z}); err != nil {
		return err
	}
	if string(h.Sum(nil)) != string(sum) {
		return errors.New("the compressed file does not hold what the plain one does")
	}
	return nil
}

// reading is a reader that ends with a context.
type reading struct {
	ctx context.Context
	r   io.Reader
}

func (r reading) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, fmt.Errorf("interrupted: %w", err)
	}
	return r.r.Read(b)
}
