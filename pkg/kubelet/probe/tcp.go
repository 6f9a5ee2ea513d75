package probe

import (
	"context"
	"net"

	corev1 "k8s.io/api/core/v1"
)

// tcpAttempt opens a connection and closes it.
func tcpAttempt() attempt {
	return attempt{
		is: func(h *corev1.ProbeHandler) bool { return h.TCPSocket != nil },
		do: func(ctx context.Context, t target) (outcome, error) {
			action := t.probe.TCPSocket
			port, err := resolvePort(action.Port, t.container)
			if err != nil {
				return outcome{}, err
			}
			host := action.Host
			if host == "" {
				host = t.podIP
			}
			dialer := net.Dialer{Timeout: t.timeout}
			conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
			if err != nil {
				return failure("%s", err)
			}
			// The container may have closed first; it did answer.
			_ = conn.Close()
			return outcome{success: true}, nil
		},
	}
}
