package audit

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	plainSuffix = ".jsonl"
	gzipSuffix  = ".gz"
	tempSuffix  = ".tmp"

	dirMode  = 0o700
	fileMode = 0o600

	// longestLine is more than the largest message that NATS takes, 64 MiB, in base64.
	longestLine = 128 << 20
)

// file is one file of a log.
type file struct {
	number int
	name   string
}

// plain is the file's name without compression.
func (f file) plain() string { return strings.TrimSuffix(f.name, gzipSuffix) }

func (f file) compressed() bool { return strings.HasSuffix(f.name, gzipSuffix) }

var fileNames = regexp.MustCompile(`^audit-(\d{8})-\d{8}\.jsonl(\.gz)?$`)

// fileName names a file so that names sort as the files follow each other.
func fileName(number int, day time.Time) string {
	return fmt.Sprintf("audit-%08d-%s%s", number, day.UTC().Format("20060102"), plainSuffix)
}

// list returns the files of a log in their order. Where a file is there in both forms, since a crash came between compressing and removing it, only the
// plain one is listed.
func list(dir string) ([]file, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []file
	for _, e := range entries { // They are sorted, so the plain name comes first.
		match := fileNames.FindStringSubmatch(e.Name())
		if match == nil {
			continue
		}
		number, err := strconv.Atoi(match[1])
		if err != nil {
			continue
		}
		f := file{number, e.Name()}
		if i := len(files) - 1; i >= 0 && files[i].name == f.plain() {
			continue
		}
		files = append(files, f)
	}
	return files, nil
}

// lineReader reads a file's lines.
type lineReader struct {
	name   string
	closes []io.Closer
	r      *bufio.Reader
	long   []byte
	// number is that of the line last read, end the offset at which it ends.
	number int
	end    int64
}

// open opens a file for reading, in whatever form it is by now: it may be compressed at any moment.
func open(dir string, f file) (*lineReader, error) {
	names := []string{f.name, f.plain() + gzipSuffix}
	if f.compressed() {
		names[1] = f.plain()
	}
	for _, name := range names {
		opened, err := os.Open(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) && name == names[0] {
			continue
		}
		if err != nil {
			return nil, err
		}
		r := &lineReader{name: name, closes: []io.Closer{opened}}
		if !strings.HasSuffix(name, gzipSuffix) {
			r.r = bufio.NewReaderSize(opened, 1<<18)
			return r, nil
		}
		unzipped, err := gzip.NewReader(bufio.NewReaderSize(opened, 1<<18))
		if err != nil {
			r.close()
			return nil, &DamagedError{Dir: dir, File: name, Line: 1, Reason: "it cannot be uncompressed: " + err.Error()}
		}
		r.closes, r.r = append(r.closes, unzipped), bufio.NewReaderSize(unzipped, 1<<18)
		return r, nil
	}
	panic("unreachable")
}

// next returns the next line without its line feed, until the one after it is read. A line that ends with the file instead of a line feed is not whole: an interrupted
// write, or one that goes on. At the end of the file the error is io.EOF.
func (r *lineReader) next() (b []byte, whole bool, err error) {
	b, err = r.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		r.long = append(r.long[:0], b...)
		for errors.Is(err, bufio.ErrBufferFull) && len(r.long) < longestLine {
			b, err = r.r.ReadSlice('\n')
			r.long = append(r.long, b...)
		}
		b = r.long
	}
	switch {
	case err == nil:
		r.number++
		r.end += int64(len(b))
		return b[:len(b)-1], true, nil
	case errors.Is(err, bufio.ErrBufferFull):
		r.number++
		return nil, false, fmt.Errorf("line %d is longer than %d bytes", r.number, longestLine)
	case errors.Is(err, io.EOF) && len(b) > 0:
		r.number++
		return b, false, nil
	}
	return nil, false, err
}

func (r *lineReader) close() {
	for _, c := range slices.Backward(r.closes) {
		_ = c.Close() // Nothing was written.
	}
}

// syncDir makes sure that the names in a directory survive a power failure.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // Nothing was written.
	return d.Sync()
}

// replace puts a file in the place of another, or of none, durably: f is complete when it appears under its name, at whatever moment the power fails.
func replace(dir, name string, write func(w io.Writer) error) (err error) {
	path := filepath.Join(dir, name)
	f, err := os.OpenFile(path+tempSuffix, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, fileMode)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // It may be closed already, and nothing of it is used.
			_ = os.Remove(f.Name())
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}
