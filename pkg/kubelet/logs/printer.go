package logs

import (
	"bytes"
	"errors"
	"io"
)

// errLimit ends a Read whose byte limit is reached.
var errLimit = errors.New("byte limit reached")

// printer writes the lines that the options choose.
type printer struct {
	out  outputs
	opts Options
	left int64 // bytes that may still be written; negative is no limit
	// skip is how many whole lines are to be dropped first.
	skip int64
	// inLine tells for each stream that its line is not complete yet.
	inLine [2]bool

	// The entry whose pieces are being printed.
	entry Entry
	drop  bool
}

func newPrinter(opts Options, out outputs) *printer {
	p := &printer{out: out, opts: opts, left: -1}
	if opts.LimitBytes != nil {
		p.left = *opts.LimitBytes
	}
	return p
}

// print takes the next piece of a file. A line that cannot be parsed is dropped.
func (p *printer) print(in piece) error {
	content := in.data
	if in.first {
		entry, err := Parse(in.data)
		if err != nil {
			p.drop = true
			return nil
		}
		content = entry.Content
		p.begin(entry)
	}
	if p.drop {
		return nil
	}
	if in.last && p.entry.Partial {
		content = bytes.TrimSuffix(content, newline)
	}
	return p.write(content)
}

// begin decides about an entry.
func (p *printer) begin(e Entry) {
	p.entry = e
	p.drop = p.out[e.Stream] == nil || e.Time.Before(p.opts.Since)
	if !p.drop && p.skip > 0 {
		p.drop = true
		if !e.Partial {
			p.skip--
		}
	}
	if p.drop {
		return
	}
	startsLine := !p.inLine[e.Stream]
	p.inLine[e.Stream] = e.Partial
	if !p.opts.Timestamps || !startsLine {
		// No time is due; an empty one keeps write simple.
		p.entry.Stamp = nil
	}
}

func (p *printer) write(content []byte) error {
	w := p.out[p.entry.Stream]
	if len(p.entry.Stamp) > 0 && p.opts.Timestamps {
		stamp := append(append(make([]byte, 0, 64), p.entry.Stamp...), ' ')
		p.entry.Stamp = nil
		if err := p.limited(w, stamp); err != nil {
			return err
		}
	}
	return p.limited(w, content)
}

func (p *printer) limited(w io.Writer, data []byte) error {
	if p.left >= 0 && int64(len(data)) > p.left {
		data = data[:p.left]
	}
	if len(data) > 0 {
		if _, err := w.Write(data); err != nil {
			return err
		}
	}
	if p.left >= 0 {
		if p.left -= int64(len(data)); p.left == 0 {
			return errLimit
		}
	}
	return nil
}

// flush hands on what a buffering writer holds.
func (p *printer) flush() {
	for i, w := range p.out {
		if f, ok := w.(interface{ Flush() }); ok && (i == 0 || w != p.out[0]) {
			f.Flush()
		}
	}
}
