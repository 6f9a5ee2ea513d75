package apiserver

import (
	"compress/gzip"
	"io"
	"sync"
)

const (
	// chunkBytes is how much of a list is written at a time. It is also from
	// where bodies are compressed: what fits one chunk is sent as it is.
	chunkBytes = gzipFrom
	// smallBytes is how large a small buffer may have become to be kept.
	smallBytes = 64 << 10
)

// buffers are what requests write their answers into, used again by later
// ones. The zero value is ready.
type buffers struct {
	chunks, smalls, zips sync.Pool
}

// chunk is an empty buffer with room for a chunk and an item beyond.
func (b *buffers) chunk() *[]byte { return take(&b.chunks, chunkBytes+chunkBytes/8) }

// putChunk gives a chunk back. One that a large item has grown is left to the
// garbage collector.
func (b *buffers) putChunk(buf *[]byte) { give(&b.chunks, buf, 2*chunkBytes) }

// small is a buffer for one object or a few events.
func (b *buffers) small() *[]byte { return take(&b.smalls, 4<<10) }

func (b *buffers) putSmall(buf *[]byte) { give(&b.smalls, buf, smallBytes) }

func take(p *sync.Pool, size int) *[]byte {
	if buf, ok := p.Get().(*[]byte); ok {
		return buf
	}
	buf := make([]byte, 0, size)
	return &buf
}

func give(p *sync.Pool, buf *[]byte, most int) {
	if cap(*buf) <= most {
		*buf = (*buf)[:0]
		p.Put(buf)
	}
}

// zip is a compressor that writes to w.
func (b *buffers) zip(w io.Writer) *gzip.Writer {
	if z, ok := b.zips.Get().(*gzip.Writer); ok {
		z.Reset(w)
		return z
	}
	z, err := gzip.NewWriterLevel(w, gzipLevel)
	if err != nil {
		panic(err) // the level is a constant of the library
	}
	return z
}

func (b *buffers) putZip(z *gzip.Writer) {
	z.Reset(io.Discard)
	b.zips.Put(z)
}
