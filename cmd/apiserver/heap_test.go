package main

import "testing"

// TestHeapStep: garbage may grow to the room there is or to what lives, and is
// given back once, when the server rests.
func TestHeapStep(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		name    string
		live    uint64
		percent int
	}{
		{"next to nothing lives", 1 * mb, mostPercent},
		{"little lives", 16 * mb, 400},
		{"half the room lives", 32 * mb, 200},
		{"more lives than there is room for garbage", 500 * mb, 100},
	} {
		h := &heap{percent: firstPercent + 1000}
		if got, _ := h.step(heapLook{live: c.live}); got != c.percent {
			t.Errorf("%s: %d%%, want %d%%", c.name, got, c.percent)
		}
	}
	h := &heap{percent: 200}
	if got, _ := h.step(heapLook{live: 31 * mb}); got != 200 {
		t.Errorf("for a little change the setting became %d%%", got)
	}
}

func TestHeapGivenBack(t *testing.T) {
	const mb = 1 << 20
	h := &heap{percent: 100}
	busy := heapLook{live: 40 * mb, allocated: 500 * mb, held: 100 * mb}
	if _, give := h.step(busy); give {
		t.Error("memory was given back under load")
	}
	resting := busy
	resting.allocated += quiet / 2
	if _, give := h.step(resting); !give {
		t.Error("no memory was given back at rest")
	}
	// What could not be given back, since it is in pieces, is not tried again.
	for range 3 {
		resting.allocated += quiet / 2
		if _, give := h.step(resting); give {
			t.Error("memory was given back again although hardly anything was allocated since")
		}
	}
	resting.allocated += 100 * mb
	if _, give := h.step(resting); give {
		t.Error("memory was given back under load")
	}
	resting.allocated++
	if _, give := h.step(resting); !give {
		t.Error("no memory was given back after more load")
	}
	small := heapLook{live: 10 * mb, allocated: resting.allocated, held: 10*mb + worth}
	if _, give := (&heap{percent: 100, last: small}).step(small); give {
		t.Error("a collection was made for next to nothing")
	}
}
