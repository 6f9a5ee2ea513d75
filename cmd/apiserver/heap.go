package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"k8s.io/utils/clock"
)

// How the heap is kept. The garbage collector's own rule lets garbage grow to
// the size of what lives: a server with few objects then collects several times
// a second under load, and one that was busy keeps all that memory for good.
const (
	// room is how much garbage may gather before it is collected, unless more
	// lives than that.
	room = 64 << 20
	// firstPercent is the collector's setting until the first look.
	firstPercent = 400
	// mostPercent keeps the setting sensible while next to nothing lives.
	mostPercent = 800
	// look is how often the heap is looked at.
	look = 500 * time.Millisecond
	// quiet is how little is allocated between two looks by a server at rest.
	quiet = 1 << 20
	// worth is how much a server at rest has to give back for it to be done: it
	// takes a collection.
	worth = 12 << 20
)

// heapLook is what is seen of the heap at once, in bytes.
type heapLook struct {
	live      uint64 // found by the last collection
	allocated uint64 // since the start
	held      uint64 // of the system's memory, for objects, garbage and later use
}

// heap keeps the heap small at rest and collections rare under load.
type heap struct {
	percent int      // the collector's present setting
	last    heapLook // of the look before
	given   uint64   // allocated when memory was last given back
}

// step decides, after one more look, how much garbage may gather (in percent of
// what lives, as GOGC) and whether memory is given back now.
func (h *heap) step(now heapLook) (percent int, giveBack bool) {
	percent = 100
	if now.live < room {
		percent = mostPercent
		if now.live > room*100/mostPercent {
			percent = int(room * 100 / now.live)
		}
	}
	// A little more or less is not worth stopping the world.
	if d := percent - h.percent; d*d <= h.percent*h.percent/100 {
		percent = h.percent
	}
	h.percent = percent
	atRest := now.allocated-h.last.allocated < quiet
	h.last = now
	spare := max(worth, now.live/4)
	if giveBack = atRest && now.held > now.live+spare && now.allocated-h.given > spare; giveBack {
		h.given = now.allocated
	}
	return percent, giveBack
}

// keepHeap runs until ctx ends. An operator who has set GOGC has decided
// otherwise; GOMEMLIMIT holds beside it.
func keepHeap(ctx context.Context, c clock.WithTicker) error {
	if os.Getenv("GOGC") != "" {
		<-ctx.Done()
		return nil
	}
	h := &heap{percent: firstPercent}
	before := debug.SetGCPercent(h.percent)
	defer debug.SetGCPercent(before)
	ticker := c.NewTicker(look)
	defer ticker.Stop()
	samples := heapSamples()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
		}
		was := h.percent
		percent, giveBack := h.step(takeLook(samples))
		if percent != was {
			debug.SetGCPercent(percent)
		}
		if giveBack {
			debug.FreeOSMemory()
		}
	}
}

func heapSamples() []metrics.Sample {
	return []metrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
	}
}

func takeLook(samples []metrics.Sample) heapLook {
	metrics.Read(samples)
	l := heapLook{live: samples[0].Value.Uint64(), allocated: samples[1].Value.Uint64()}
	for _, s := range samples[2:] {
		l.held += s.Value.Uint64()
	}
	return l
}
