package aggregate

import (
	"net"
	"time"
)

// idleConn is a connection that ends when nothing moves on it.
type idleConn struct {
	net.Conn
	timer *time.Timer
}

func newIdleConn(c net.Conn) *idleConn {
	i := &idleConn{Conn: c}
	i.timer = time.AfterFunc(idleTime, func() {
		if err := c.Close(); err != nil {
			return // it has ended already
		}
	})
	return i
}

// Read implements net.Conn.
func (i *idleConn) Read(b []byte) (int, error) {
	n, err := i.Conn.Read(b)
	i.timer.Reset(idleTime)
	return n, err
}

// Write implements net.Conn.
func (i *idleConn) Write(b []byte) (int, error) {
	i.timer.Reset(idleTime)
	return i.Conn.Write(b)
}

// Close implements net.Conn.
func (i *idleConn) Close() error {
	defer i.timer.Stop()
	return i.Conn.Close()
}
