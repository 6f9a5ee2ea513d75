package probe

import (
	"context"
	"net"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
)

// grpcAttempt asks the standard health service; SERVING is success.
func grpcAttempt() attempt {
	return attempt{
		is: func(h *corev1.ProbeHandler) bool { return h.GRPC != nil },
		do: func(ctx context.Context, t target) (outcome, error) {
			ctx, cancel := context.WithTimeout(ctx, t.timeout)
			defer cancel()
			action := t.probe.GRPC
			address := net.JoinHostPort(t.podIP, strconv.Itoa(int(action.Port)))
			conn, err := grpc.NewClient("passthrough:///"+address,
				grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithUserAgent(userAgent), grpc.WithNoProxy())
			if err != nil {
				return outcome{}, err
			}
			defer conn.Close()
			req := &healthpb.HealthCheckRequest{}
			if action.Service != nil {
				req.Service = *action.Service
			}
			resp, err := healthpb.NewHealthClient(conn).Check(ctx, req)
			if err != nil {
				return failure("%s", grpcError(err, address))
			}
			if resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
				return failure("service unhealthy (responded with %q)", resp.GetStatus())
			}
			return outcome{success: true}, nil
		},
	}
}

func grpcError(err error, address string) string {
	switch s := status.Convert(err); s.Code() {
	case codes.Unimplemented:
		return "the server does not implement the gRPC health protocol (grpc.health.v1.Health)"
	case codes.DeadlineExceeded:
		return "health rpc to " + address + " did not complete within the timeout"
	default:
		return "health rpc to " + address + " failed: " + s.Message()
	}
}
