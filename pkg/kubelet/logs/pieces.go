package logs

import (
	"bytes"
	"errors"
	"io"
)

// maxPiece is the most of a line that is held at a time. It is larger than any
// header, and than the entries that runtimes write (16 KiB).
const maxPiece = 64 << 10

// piece is a line, or a part of a line longer than maxPiece.
type piece struct {
	data []byte
	// first and last say whether the line begins and ends in this piece.
	first, last bool
}

// pieces cuts a growing file into lines.
type pieces struct {
	src io.Reader
	buf []byte // buf[from:to] is read but not given out
	// from and to delimit the unread part of buf.
	from, to int
	inLine   bool // the last piece did not end its line
}

func newPieces(src io.Reader) *pieces {
	return &pieces{src: src, buf: make([]byte, maxPiece)}
}

// next gives the next piece, valid until the next call. io.EOF means that no
// whole line is there yet; it may be called again once the file has grown.
func (p *pieces) next() (piece, error) {
	searched := 0
	for {
		unread := p.buf[p.from:p.to]
		if i := bytes.IndexByte(unread[searched:], '\n'); i >= 0 {
			return p.take(searched+i+1, true), nil
		}
		searched = len(unread)
		if len(unread) == len(p.buf) {
			return p.take(len(unread), false), nil
		}
		copy(p.buf, unread)
		p.from, p.to = 0, len(unread)
		n, err := p.src.Read(p.buf[p.to:])
		p.to += n
		if n == 0 && err != nil {
			return piece{}, err
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return piece{}, err
		}
	}
}

// rest gives what follows the last newline, a line whose writer never ended it.
func (p *pieces) rest() (piece, bool) {
	if p.from == p.to {
		return piece{}, false
	}
	return p.take(p.to-p.from, true), true
}

func (p *pieces) take(n int, last bool) piece {
	out := piece{data: p.buf[p.from : p.from+n], first: !p.inLine, last: last}
	p.from += n
	p.inLine = !last
	return out
}
