package logs

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Read copies the log of one container to stdout and stderr; either may be nil,
// which leaves that stream out, and both may be the same writer. A writer with
// a Flush method is flushed whenever Read waits for more.
//
// It ends with nil when everything has been written, when LimitBytes is
// reached, and, with Follow, when the container has ended or ctx has. An error
// that matches fs.ErrNotExist says that there is no log.
func Read(ctx context.Context, file File, opts Options, stdout, stderr io.Writer) error {
	if opts.LimitBytes != nil && *opts.LimitBytes <= 0 {
		return nil
	}
	dir, err := openFolder(file.PodDir, file.Name)
	if err != nil {
		return err
	}
	defer dir.close()
	r := &reader{dir: dir, file: file, printer: newPrinter(opts, outputs{stdout, stderr})}
	err = r.read(ctx, opts)
	if err != nil && !errors.Is(err, errLimit) && ctx.Err() == nil {
		return err
	}
	r.printer.flush()
	return nil
}

type reader struct {
	dir     *folder
	file    File
	printer *printer
}

func (r *reader) read(ctx context.Context, opts Options) error {
	segments, err := r.plan(opts)
	defer func() {
		for _, s := range segments {
			s.file.Close()
		}
	}()
	if err != nil {
		return err
	}
	for i, s := range segments {
		current := i == len(segments)-1
		if err := r.copySegment(ctx, s, current && opts.Follow); err != nil {
			return err
		}
	}
	return nil
}

// segment is a file of the log and where to begin in it.
type segment struct {
	file       *os.File
	compressed bool
	// offset is where to begin in a plain file; skip is how many lines to
	// drop in a compressed one.
	offset int64
	skip   int64
}

// plan opens the files to read, the oldest first and the current one last.
func (r *reader) plan(opts Options) ([]segment, error) {
	// The current file comes first: one that is rotated meanwhile then shows
	// up twice, which can be seen, and not at all, which could not.
	current, err := r.dir.open(r.dir.base)
	if err != nil {
		return nil, err
	}
	segments := []segment{{file: current}}
	names, err := r.dir.rotated()
	if err != nil {
		return segments, err
	}
	left := int64(-1)
	if opts.Tail != nil {
		left = max(*opts.Tail, 0)
		if left, err = segments[0].tail(left, r.printer.out); err != nil {
			return segments, err
		}
	}
	for i := len(names) - 1; i >= 0 && left != 0; i-- {
		s, err := r.openRotated(names[i], current)
		if isGone(err) || errors.Is(err, errCurrent) {
			continue
		}
		if err != nil {
			return segments, err
		}
		segments = append([]segment{s}, segments...)
		if info, err := s.file.Stat(); err == nil && info.ModTime().Before(opts.Since) {
			break
		}
		if left > 0 {
			if left, err = segments[0].tail(left, r.printer.out); err != nil {
				return segments, err
			}
		}
	}
	return segments, nil
}

// errCurrent says that a rotated file is the current one by its new name.
var errCurrent = errors.New("the file is the current one")

// openRotated opens an older file. It fails with fs.ErrNotExist when the file
// has been removed, and with errCurrent when it is the one given.
func (r *reader) openRotated(name string, current *os.File) (segment, error) {
	f, err := r.dir.open(name)
	if isGone(err) && !strings.HasSuffix(name, gzipSuffix) {
		// It has been compressed since it was listed.
		name += gzipSuffix
		f, err = r.dir.open(name)
	}
	if err != nil {
		return segment{}, err
	}
	if sameFile(f, current) {
		f.Close()
		return segment{}, errCurrent
	}
	return segment{file: f, compressed: strings.HasSuffix(name, gzipSuffix)}, nil
}

func (r *reader) copySegment(ctx context.Context, s segment, follow bool) error {
	src, err := s.source()
	if err != nil {
		return err
	}
	r.printer.skip = s.skip
	lines := newPieces(src)
	if follow {
		return r.follow(ctx, s.file, lines)
	}
	if err := r.drain(ctx, lines); err != nil {
		return err
	}
	if p, ok := lines.rest(); ok {
		return r.printer.print(p)
	}
	return nil
}

func (s *segment) source() (io.Reader, error) {
	if s.compressed {
		if _, err := s.file.Seek(0, io.SeekStart); err != nil {
			return nil, err
		}
		z, err := gzip.NewReader(s.file)
		if err != nil {
			return nil, fmt.Errorf("compressed log %s: %w", s.file.Name(), err)
		}
		return z, nil
	}
	_, err := s.file.Seek(s.offset, io.SeekStart)
	return s.file, err
}

// drain prints all whole lines that are there.
func (r *reader) drain(ctx context.Context, lines *pieces) error {
	for {
		p, err := lines.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.printer.print(p); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}
