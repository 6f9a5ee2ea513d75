package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	mebibyte = 1 << 20
	// settle is how long a server rests before its memory is looked at.
	settle = 2 * time.Second
	// watchMemoryEvery is how often memory is looked at under load.
	watchMemoryEvery = 5 * time.Millisecond
	// bigObject and manyLists are those of the row of ten lists.
	bigObject = 100 << 10
	manyLists = 10
)

// memory looks at what each server holds after the load.
func (p *phase) memory(ctx context.Context) error {
	if !p.wants(rowMemory) {
		return nil
	}
	if err := rest(ctx, settle); err != nil {
		return err
	}
	for _, ln := range p.lanes {
		anon, err := anonOf(ln.prog.pid())
		if err != nil {
			return ln.prog.died()
		}
		p.figure(rowMemory, ln.name, float64(anon)/mebibyte)
	}
	return nil
}

func rest(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// bigLists asks each server for ten lists at once and looks at how much its
// memory grows.
func (p *phase) bigLists(ctx context.Context) error {
	for _, ln := range p.lanes {
		if ln.name == laneFloor {
			continue
		}
		if err := rest(ctx, settle); err != nil {
			return err
		}
		before, err := anonOf(ln.prog.pid())
		if err != nil {
			return ln.prog.died()
		}
		peak := watchMemory(ln.prog.pid())
		s, err := p.profiled(ln, rowBigLists, func() (sample, error) {
			return ln.run(ctx, manyLists, manyLists, func(int) *request { return ln.work.list(jsonType) })
		})
		most := peak()
		if err != nil {
			return fmt.Errorf("%s: %w", rowBigLists, err)
		}
		p.add(rowBigLists, ln.name, s)
		p.figure(rowBigLists, ln.name, float64(most-before)/mebibyte)
	}
	return nil
}

// watchMemory looks at a process' anonymous memory until the function that it
// returns is called, which returns the most that was seen.
func watchMemory(pid int) func() int64 {
	stop := make(chan struct{})
	var most int64
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(watchMemoryEvery)
		defer tick.Stop()
		for {
			if anon, err := anonOf(pid); err == nil {
				most = max(most, anon)
			}
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	})
	return func() int64 {
		close(stop)
		wg.Wait()
		return most
	}
}
