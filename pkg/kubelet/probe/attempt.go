package probe

import (
	"context"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// attempt is one way of asking a container how it is.
type attempt struct {
	is func(*corev1.ProbeHandler) bool
	// do asks once. An error means that nothing was learnt about the container.
	do func(ctx context.Context, t target) (outcome, error)
}

// attempts lists every kind of attempt.
func attempts(cfg Config) []attempt {
	return []attempt{
		execAttempt(cfg.Exec),
		httpAttempt(),
		tcpAttempt(),
		grpcAttempt(),
	}
}

// target is whom to ask and how.
type target struct {
	container *corev1.Container
	id        string // the runtime's id of the container
	podIP     string
	probe     *corev1.Probe
	timeout   time.Duration
}

// outcome is what the container answered.
type outcome struct {
	success bool
	// message tells the user why it failed.
	message string
}

func failure(format string, args ...any) (outcome, error) {
	return outcome{message: fmt.Sprintf(format, args...)}, nil
}

// resolvePort gives the number of a port that may be named.
func resolvePort(port intstr.IntOrString, c *corev1.Container) (string, error) {
	n := port.IntValue()
	if port.Type == intstr.String {
		for i := range c.Ports {
			if c.Ports[i].Name == port.StrVal {
				n = int(c.Ports[i].ContainerPort)
			}
		}
	}
	if n < 1 || n > 65535 {
		return "", fmt.Errorf("container %q has no port %q", c.Name, port.String())
	}
	return strconv.Itoa(n), nil
}
