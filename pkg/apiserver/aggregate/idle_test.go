package aggregate

import (
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// TestIdleConnections: a connection to a backend on which nothing moves ends.
func TestIdleConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		c := newIdleConn(near)
		go func() {
			for range 3 {
				time.Sleep(idleTime / 2)
				if _, err := far.Write([]byte("x")); err != nil {
					t.Errorf("the connection ended while something moved: %v", err)
				}
			}
		}()
		buf := make([]byte, 1)
		for range 3 {
			if _, err := c.Read(buf); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		if _, err := c.Read(buf); err == nil {
			t.Error("something came from nowhere")
		}
		if silent := time.Since(began); silent != idleTime || idleTime > 4*time.Hour {
			t.Errorf("the connection ended after %s", silent)
		}
	})
}
