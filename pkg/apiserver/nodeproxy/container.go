package nodeproxy

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// defaultContainerAnnotation names the container that is meant when none is.
const defaultContainerAnnotation = "kubectl.kubernetes.io/default-container"

// container is the container that a request means.
func container(pod *corev1.Pod, asked string) (string, error) {
	var regular, others []string
	for _, c := range pod.Spec.Containers {
		regular = append(regular, c.Name)
	}
	for _, c := range pod.Spec.InitContainers {
		others = append(others, c.Name)
	}
	for _, c := range pod.Spec.EphemeralContainers {
		others = append(others, c.Name)
	}
	if asked == "" {
		if name := pod.Annotations[defaultContainerAnnotation]; slices.Contains(regular, name) {
			return name, nil
		}
		if len(regular) == 1 {
			return regular[0], nil
		}
		msg := fmt.Sprintf("a container name must be specified for pod %s, choose one of: [%s]", pod.Name, strings.Join(regular, " "))
		if len(others) > 0 {
			msg += fmt.Sprintf(" or one of the init containers: [%s]", strings.Join(others, " "))
		}
		return "", apierrors.NewBadRequest(msg)
	}
	if !slices.Contains(regular, asked) && !slices.Contains(others, asked) {
		return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", asked, pod.Name))
	}
	return asked, nil
}

// streams are what an exec or attach connects.
type streams struct{ stdin, stdout, stderr, tty bool }

func parseStreams(q url.Values, stderrDefault bool) (streams, error) {
	on := func(name string) bool { v := q.Get(name); return v == "true" || v == "1" }
	s := streams{stdin: on("stdin"), stdout: on("stdout"), stderr: on("stderr"), tty: on("tty")}
	if !q.Has("stdin") && !q.Has("stdout") && !q.Has("stderr") {
		s.stdout, s.stderr = true, stderrDefault
	}
	if s.tty {
		s.stderr = false // a terminal has one output
	}
	if !s.stdin && !s.stdout && !s.stderr {
		return s, apierrors.NewBadRequest("you must specify at least one of stdin, stdout, stderr")
	}
	return s, nil
}

// query is the agent's form of s.
func (s streams) query() url.Values {
	q := url.Values{}
	for name, on := range map[string]bool{"input": s.stdin, "output": s.stdout, "error": s.stderr, "tty": s.tty} {
		if on {
			q.Set(name, "1")
		}
	}
	return q
}
