package logs

import (
	"bytes"
	"errors"
	"time"
)

// Stream is one of a container's two outputs.
type Stream int

// The streams.
const (
	Stdout Stream = iota
	Stderr
)

// Entry is one line of a log file.
type Entry struct {
	// Stamp is the time as it is written in the file.
	Stamp []byte
	Time  time.Time
	// Stream is where the container wrote to.
	Stream Stream
	// Partial is set when the container's line goes on in the stream's next entry.
	Partial bool
	// Content is what follows the header, with whatever newline ends it.
	Content []byte
}

var (
	errHeader = errors.New("the line has no time, stream and tag before its content")
	errStream = errors.New("the line names a stream other than stdout and stderr")
)

// Parse reads one line, or the beginning of one that holds the whole header.
// The slices of the result point into the line.
func Parse(line []byte) (Entry, error) {
	var e Entry
	stamp, rest, ok := bytes.Cut(line, space)
	if !ok {
		return e, errHeader
	}
	stream, rest, ok := bytes.Cut(rest, space)
	if !ok {
		return e, errHeader
	}
	tags, content, ok := bytes.Cut(rest, space)
	if !ok {
		// An empty line may lack the space before its newline.
		tags, ok = bytes.CutSuffix(rest, newline)
		if !ok {
			return e, errHeader
		}
		content = rest[len(tags):]
	}
	t, err := time.Parse(time.RFC3339Nano, string(stamp))
	if err != nil {
		return e, errHeader
	}
	switch string(stream) {
	case "stdout":
		e.Stream = Stdout
	case "stderr":
		e.Stream = Stderr
	default:
		return e, errStream
	}
	// The first tag says whether the line is complete; others may follow.
	first, _, _ := bytes.Cut(tags, []byte(":"))
	switch string(first) {
	case "F":
	case "P":
		e.Partial = true
	default:
		return e, errHeader
	}
	e.Stamp, e.Time, e.Content = stamp, t, content
	return e, nil
}

var (
	space   = []byte(" ")
	newline = []byte("\n")
)
