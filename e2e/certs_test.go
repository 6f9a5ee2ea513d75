//go:build e2e

package e2e

import (
	"context"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// replacesAuthority replaces the cluster's authority while the demo runs. Whoever
// came before goes on until the old one is given up, and nobody after.
func (s *suite) replacesAuthority() {
	before := s.client
	s.ctl("cluster", "rotate-ca", name)
	if _, err := before.CoreV1().Namespaces().List(context.Background(), metav1.ListOptions{}); err != nil {
		s.t.Errorf("who knows the old authority alone is cut off: %v", err)
	}
	if out := s.ctl("cluster", "certs", name); !strings.Contains(out, "ca-next.crt") {
		s.t.Errorf("the list of certificates does not show the replacement:\n%s", out)
	}
	s.ctl("cluster", "rotate-ca", name, "--finish")
	s.connect()
	s.eventually("the demo is there under the new authority", time.Minute, s.available)
	if _, err := before.CoreV1().Namespaces().List(context.Background(), metav1.ListOptions{}); err == nil {
		s.t.Error("a certificate of the old authority still counts")
	}
	// The way to an agent: its certificate, and the API server's for agents.
	s.ctl("logs", "first")
	s.run("later", "sleep", "1000000")
	s.eventually("a pod begins under the new authority", time.Minute, s.running("default", "later"))
	s.ctl("delete", "pod", "later", "--now")
}
