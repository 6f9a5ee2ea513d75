package logs

import (
	"bytes"
	"errors"
	"io"
)

// tail moves the start of the segment so that it gives its last n lines of the
// wanted streams, and gives how many of the n older files have to provide.
func (s *segment) tail(n int64, out outputs) (left int64, err error) {
	if s.compressed {
		return s.tailCompressed(n, out)
	}
	end, err := s.file.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	s.offset = end
	if n == 0 {
		return 0, nil
	}
	starts := backward{file: s.file, end: end}
	for {
		start, ok, err := starts.previous()
		if err != nil {
			return 0, err
		}
		if !ok {
			return n, nil
		}
		header := make([]byte, maxHeader)
		got, err := s.file.ReadAt(header, start)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		e, err := Parse(header[:got])
		if err == nil && out[e.Stream] != nil && !e.Partial {
			// This is the end of a line. The one before the last n is not
			// wanted, but the partial entries behind it belong to the next.
			if n == 0 {
				return 0, nil
			}
			n--
		}
		s.offset = start
	}
}

// maxHeader is more than any header takes, whatever the precision of its time.
const maxHeader = 128

// tailCompressed counts the lines, since a compressed file has no way back.
func (s *segment) tailCompressed(n int64, out outputs) (left int64, err error) {
	src, err := s.source()
	if err != nil {
		return 0, err
	}
	total := int64(0)
	lines := newPieces(src)
	for {
		p, err := lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
		if !p.first {
			continue
		}
		if e, err := Parse(p.data); err == nil && out[e.Stream] != nil && !e.Partial {
			total++
		}
	}
	if total > n {
		s.skip = total - n
		return 0, nil
	}
	return n - total, nil
}

// backward finds the starts of lines from the end of a file on.
type backward struct {
	file io.ReaderAt
	end  int64 // lines that start at or behind end have been found
	// block holds the file from at on; it is searched from its end.
	block []byte
	at    int64
	done  bool
}

// previous gives the start of the line before the last one given; ok is false
// when there is none.
func (b *backward) previous() (start int64, ok bool, err error) {
	if b.done || b.end == 0 {
		return 0, false, nil
	}
	// A newline right before end closes the line looked for and does not start it.
	limit := b.end - 1
	for {
		if limit <= 0 {
			b.done = true
			return 0, true, nil
		}
		if b.block == nil || limit <= b.at {
			if err := b.load(limit); err != nil {
				return 0, false, err
			}
		}
		if i := bytes.LastIndexByte(b.block[:limit-b.at], '\n'); i >= 0 {
			b.end = b.at + int64(i) + 1
			return b.end, true, nil
		}
		limit = b.at
	}
}

// load reads the block that ends at the offset given.
func (b *backward) load(end int64) error {
	size := min(end, maxPiece)
	if b.block == nil {
		b.block = make([]byte, maxPiece)
	}
	b.at = end - size
	b.block = b.block[:size]
	_, err := b.file.ReadAt(b.block, b.at)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}
