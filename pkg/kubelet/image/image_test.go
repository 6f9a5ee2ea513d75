package image

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"

	"coracle/pkg/kubelet/crifake"
	"coracle/pkg/kubelet/lifecycle"
)

func TestEnsure(t *testing.T) {
	runtime := crifake.New(crifake.Config{})
	runtime.AddImage("here:1")
	for _, tc := range []struct {
		image  string
		policy corev1.PullPolicy
		reason string // of the error, empty for success
		text   string // in the error
		pulls  int
	}{
		{"here:1", "", "", "", 0},
		{"here:1", corev1.PullAlways, "", "", 1},
		{"there:1", "", "", "", 1},
		{"there:2", corev1.PullNever, lifecycle.ReasonErrImageNeverPull, "pull policy of Never", 0},
		{"Not A Name", "", lifecycle.ReasonInvalidImageName, "couldn't parse image name", 0},
		{"fake/missing:1", "", lifecycle.ReasonErrImagePull, "not found", 1},
		{"fake/denied:1", "", lifecycle.ReasonErrImagePull, "authorization failed", 1},
		{"fake/unreachable:1", "", lifecycle.ReasonErrImagePull, "`ctl image pull fake/unreachable:1`", 1},
		{"fake/unreachable:2", "", lifecycle.ReasonErrImagePull, "--egress", 1},
	} {
		t.Run(tc.image+string(tc.policy), func(t *testing.T) {
			before := runtime.Calls("PullImage")
			m := New(Config{Runtime: runtime})
			_, err := m.Ensure(t.Context(), Request{Pod: &corev1.Pod{}, Container: &corev1.Container{Image: tc.image, ImagePullPolicy: tc.policy}})
			var failed *Error
			switch errors.As(err, &failed); {
			case tc.reason == "" && err != nil:
				t.Errorf("error %v", err)
			case tc.reason != "" && (failed == nil || failed.Reason != tc.reason || !strings.Contains(failed.Message, tc.text)):
				t.Errorf("error %v, want %s with %q", err, tc.reason, tc.text)
			}
			if got := runtime.Calls("PullImage") - before; got != tc.pulls {
				t.Errorf("%d pulls, want %d", got, tc.pulls)
			}
		})
	}
}

func TestClosedNodeUsesLoadedImage(t *testing.T) {
	runtime := crifake.New(crifake.Config{})
	runtime.AddImage("fake/unreachable:1")
	runtime.AddImage("fake/denied:1")
	ensure := func(closed bool, image string) error {
		m := New(Config{Runtime: runtime, Closed: closed})
		_, err := m.Ensure(t.Context(), Request{Pod: &corev1.Pod{}, Container: &corev1.Container{Image: image, ImagePullPolicy: corev1.PullAlways}})
		return err
	}
	if err := ensure(true, "fake/unreachable:1"); err != nil {
		t.Errorf("closed node: %v", err)
	}
	if err := ensure(false, "fake/unreachable:1"); err == nil {
		t.Error("an open node must not use an image that it could not look up")
	}
	if err := ensure(true, "fake/denied:1"); err == nil {
		t.Error("a registry that refuses was reached, so its answer counts")
	}
}

func TestBackOffGrows(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Unix(0, 0))
	m := New(Config{Runtime: crifake.New(crifake.Config{}), Clock: clock})
	var delays []time.Duration
	for range 8 {
		_, err := m.Ensure(t.Context(), Request{Pod: &corev1.Pod{}, Container: &corev1.Container{Image: "fake/missing:1"}})
		var failed *Error
		if !errors.As(err, &failed) {
			t.Fatal(err)
		}
		delays = append(delays, failed.RetryAt.Sub(clock.Now()))
		clock.SetTime(failed.RetryAt)
	}
	want := []time.Duration{10e9, 20e9, 40e9, 80e9, 160e9, 300e9, 300e9, 300e9}
	if !slices.Equal(delays, want) {
		t.Errorf("delays %v, want %v", delays, want)
	}
}

func TestPolicyByTag(t *testing.T) {
	for image, want := range map[string]corev1.PullPolicy{
		"busybox": corev1.PullAlways, "busybox:latest": corev1.PullAlways, "busybox:1": corev1.PullIfNotPresent,
		"r.example:5000/a/b":                        corev1.PullAlways,
		"busybox@sha256:" + strings.Repeat("a", 64): corev1.PullIfNotPresent,
	} {
		if got := Policy(&corev1.Container{Image: image}); got != want {
			t.Errorf("%s: %s, want %s", image, got, want)
		}
	}
}

func TestCredentials(t *testing.T) {
	auth := base64.StdEncoding.EncodeToString([]byte("joe:pa:ss"))
	secret := &corev1.Secret{Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(
		`{"auths":{"https://index.docker.io/v1/":{"auth":"` + auth + `"},"*.example.com":{"username":"star"},"r.example.com/team":{"username":"team"}}}`)}}
	m := New(Config{Secret: func(context.Context, string, string) (*corev1.Secret, error) { return secret, nil }})
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}}
	pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "s"}}
	for image, want := range map[string][]string{
		"busybox:1": {"joe"}, "r.example.com/team/x:1": {"team", "star"}, "r.example.com/teams/x:1": {"star"},
		"a.b.example.com/x": nil, "example.org/x": nil,
	} {
		var got []string
		for _, a := range m.credentials(t.Context(), pod, image) {
			got = append(got, a.Username)
			if a.Username == "joe" && a.Password != "pa:ss" {
				t.Errorf("password %q", a.Password)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", image, got, want)
		}
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"Head https://joe:secret@r.example/v2/: 401":  "Head https://***@r.example/v2/: 401",
		"https://r.example/a@sha256:1 and http://x@y": "https://r.example/a@sha256:1 and http://***@y",
		"plain": "plain",
	} {
		if got := redact(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzDockerConfig(f *testing.F) {
	f.Add([]byte(`{"auths":{"r":{"auth":"YTpi"}}}`))
	f.Add([]byte(`{"r":{"username":"u","password":"p"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, nested := range []bool{true, false} {
			into := map[string]entry{}
			if err := decodeConfig(data, nested, into); err == nil {
				fitting(into, "docker.io", "library/busybox")
			}
		}
	})
}
