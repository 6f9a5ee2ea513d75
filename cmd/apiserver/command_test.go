package main

import (
	"log/slog"
	"strings"
	"testing"
)

// TestBadInput: each mistake gets one sentence at once.
func TestBadInput(t *testing.T) {
	locked := t.TempDir()
	if err := lockDir(locked); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "give --data-dir DIR"},
		{[]string{"--data-dir", locked}, "another API server uses " + locked},
		{[]string{"--storage-backend", "bolt"}, "use etcd3 or memory"},
		{[]string{"--authorization-mode", "AlwaysAllow"}, "by Node and RBAC only"},
		{[]string{"--service-cluster-ip-range", "10.0.0.0"}, "is not a CIDR"},
		{[]string{"--cluster-cidr", "10.1.0.0"}, "is not a CIDR"},
		{[]string{"--storage-backend", "memory", "--secure-port", "0"}, "needs a folder for its certificates"},
		{[]string{"--data-dir", t.TempDir(), "--audit-log-maxage", "-1"}, "must not be negative"},
		{[]string{"--data-dir", t.TempDir(), "--audit-policy-file", "/dev/null"}, "want apiVersion audit.k8s.io/v1"},
		{[]string{"--storage-backend", "memory", "--bind-address", "192.0.2.77"}, "listen for the API"},
		{[]string{"--data-dir", t.TempDir(), "--storage-backend", "memory", "--secure-port", "0", "--disable-admission-plugins", "NodeRestriction"}, "cannot be disabled"},
		{[]string{"--data-dir", t.TempDir(), "--audit-log-format", "legacy"}, "use json"},
		{[]string{"--feature-gates", "A=true,B"}, `"B" is not NAME=true`},
		{[]string{"--runtime-config", "apps/v1=maybe"}, "is not GROUP/VERSION=true"},
		{[]string{"--oidc-issuer-url", "https://id.example"}, "give both"},
		{[]string{"--oidc-issuer-url", "https://id.example", "--authentication-config", "f"}, "exclude each other"},
		{[]string{"--data-dir", t.TempDir(), "--storage-backend", "memory", "--secure-port", "0", "--oidc-issuer-url", "http://id.example", "--oidc-client-id", "c"}, "must begin with https://"},
		{[]string{"--data-dir", t.TempDir(), "--storage-backend", "memory", "--secure-port", "0", "--oidc-issuer-url", "https://id.example", "--oidc-client-id", "c", "--oidc-signing-algs", "none"}, "cannot be signed with"},
	} {
		cmd := newCommand(slog.New(slog.DiscardHandler))
		cmd.SetArgs(c.args)
		err := cmd.ExecuteContext(t.Context())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.args, err, c.want)
		}
	}
}

// TestCompatible: flags of kube-apiserver that change nothing are taken, and who
// asks for something else than there is learns of it.
func TestCompatible(t *testing.T) {
	for _, c := range []struct {
		args  []string
		warns string // empty where the log says nothing
	}{
		{[]string{"-v=4", "--vmodule=a=1", "--logging-format=json", "--watch-cache=false", "--watch-cache-sizes=pods#1", "--storage-media-type=application/json"}, ""},
		{[]string{"--runtime-config=api/all=true,apps/v1,v1=true", "--runtime-config=resource.k8s.io/v1/deviceclasses=true"}, ""},
		{[]string{"--runtime-config=resource.k8s.io/v1alpha3=true"}, "resource.k8s.io/v1alpha3"},
		{[]string{"--runtime-config=apps/v1=false"}, "all the same"},
		{[]string{"--runtime-config=api/beta=false"}, ""},
		{[]string{"--feature-gates=Some=true"}, "gate=Some"},
		{[]string{"--cluster-cidr="}, ""}, // as an unset one of kube-controller-manager
	} {
		var said strings.Builder
		cmd := newCommand(slog.New(slog.NewTextHandler(&said, nil)))
		// A server that cannot listen has read its flags.
		cmd.SetArgs(append([]string{"--storage-backend", "memory", "--data-dir", t.TempDir(), "--bind-address", "192.0.2.77"}, c.args...))
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "listen for the API") {
			t.Errorf("%v: %v", c.args, err)
		}
		if warned := strings.Contains(said.String(), "level=WARN"); warned != (c.warns != "") || !strings.Contains(said.String(), c.warns) {
			t.Errorf("%v: the log says %q, want %q", c.args, said.String(), c.warns)
		}
	}
}
