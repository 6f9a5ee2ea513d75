package probe

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// execAttempt runs a command in the container; exit code 0 is success.
func execAttempt(run func(context.Context, string, []string, time.Duration) (int, []byte, error)) attempt {
	return attempt{
		is: func(h *corev1.ProbeHandler) bool { return h.Exec != nil },
		do: func(ctx context.Context, t target) (outcome, error) {
			code, out, err := run(ctx, t.id, t.probe.Exec.Command, t.timeout)
			switch {
			case errors.Is(err, context.DeadlineExceeded):
				return failure("command timed out after %s", t.timeout)
			case err != nil:
				return outcome{}, fmt.Errorf("running the probe's command: %w", err)
			case code != 0:
				return failure("%s", strings.TrimSpace(string(out)))
			}
			return outcome{success: true}, nil
		},
	}
}
