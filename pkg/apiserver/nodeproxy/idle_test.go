package nodeproxy

import (
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// TestIdleStreams: a stream on which nothing moves ends after four hours, one on
// which something does goes on.
func TestIdleStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		agentSide, agent := net.Pipe()
		ended := make(chan time.Time, 1)
		go func() {
			join(server, agentSide)
			ended <- time.Now()
		}()
		go func() {
			if _, err := io.Copy(io.Discard, agent); err != nil {
				return
			}
		}()
		var last time.Time
		for range 5 {
			time.Sleep(3 * time.Hour)
			if _, err := client.Write([]byte("x")); err != nil {
				t.Fatalf("the stream ended while something moved: %v", err)
			}
			last = time.Now()
		}
		if idle := (<-ended).Sub(last); idle != 4*time.Hour {
			t.Errorf("the stream ended after %s of silence", idle)
		}
		if _, err := client.Write([]byte("x")); err == nil {
			t.Error("the client's side is still open")
		}
	})
}
