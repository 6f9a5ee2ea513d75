package main

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestParseTaint(t *testing.T) {
	for text, want := range map[string]corev1.Taint{
		"a=b:NoSchedule": {Key: "a", Value: "b", Effect: corev1.TaintEffectNoSchedule},
		"a/b:NoExecute":  {Key: "a/b", Effect: corev1.TaintEffectNoExecute},
	} {
		if got, err := parseTaint(text); err != nil || got != want {
			t.Errorf("%s is %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "a=b", "a:Never", ":NoSchedule"} {
		if got, err := parseTaint(text); err == nil {
			t.Errorf("%q is %+v", text, got)
		}
	}
}

func TestSimulatedFlags(t *testing.T) {
	for args, want := range map[string]string{
		"--simulated=1": "--kubeconfig",
		"--simulated=1 --kubeconfig=/none --simulated-capacity=cpu=x":      "--simulated-capacity",
		"--simulated=1 --kubeconfig=/none --register-with-taints=a":        "--register-with-taints",
		"--simulated=1 --kubeconfig=/none/there --simulated-start-time=1s": "/none/there",
	} {
		cmd := newCommand(slog.New(slog.DiscardHandler))
		cmd.SetArgs(strings.Fields(args))
		if err := cmd.ExecuteContext(context.Background()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want it to name %s", args, err, want)
		}
	}
}
