//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"coracle/pkg/cluster"
)

// database writes a line into its own volume each time it starts, as a user
// who is not root.
const database = `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: database}
spec:
  serviceName: database
  selector: {matchLabels: {app: database}}
  replicas: 2
  persistentVolumeClaimRetentionPolicy: {whenDeleted: Delete}
  template:
    metadata: {labels: {app: database}}
    spec:
      terminationGracePeriodSeconds: 0
      securityContext: {fsGroup: 2000, runAsUser: 1000}
      containers:
      - name: main
        image: busybox
        command: ["sh", "-c", "echo $(hostname) >> /data/starts; sleep 1000000"]
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
`

// showing reads a file of an image that is a volume.
const showing = `
apiVersion: v1
kind: Pod
metadata: {name: showing}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: busybox
    command: ["sh", "-c", "test -x /image/bin/busybox && ! touch /image/new"]
    volumeMounts: [{name: image, mountPath: /image}]
  volumes:
  - {name: image, image: {reference: busybox}}
`

// storage: an image can be a volume; a claim of the default class just works, its
// data outlive its pods, and its folder goes with it.
func (s *suite) storage() {
	s.apply(showing)
	s.eventually("a pod reads an image that is a volume", time.Minute, func(ctx context.Context) error {
		pod, err := s.client.CoreV1().Pods("default").Get(ctx, "showing", metav1.GetOptions{})
		if err == nil && pod.Status.Phase != corev1.PodSucceeded {
			err = fmt.Errorf("it is %s: %v", pod.Status.Phase, pod.Status.ContainerStatuses)
		}
		return err
	})
	s.ctl("delete", "pod", "showing")
	s.apply(database)
	for _, pod := range []string{"database-0", "database-1"} {
		s.eventually(pod+" runs on its volume", time.Minute, s.running("default", pod))
		s.ctl("delete", "pod", pod)
		s.eventually(pod+" finds its data again", time.Minute, func(context.Context) error {
			out, err := s.tryCtl("exec", pod, "--", "cat", "/data/starts")
			if lines := strings.Fields(out); err != nil || len(lines) != 2 || lines[0] != pod {
				return fmt.Errorf("%q: %v", out, err)
			}
			return nil
		})
	}
	s.eventually("both have a folder", time.Second, func(context.Context) error { return s.wantFolders(2) })
	s.ctl("delete", "statefulset", "database")
	s.eventually("volumes and folders are gone", time.Minute, func(ctx context.Context) error {
		list, err := s.client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
		if err != nil || len(list.Items) > 0 {
			return fmt.Errorf("%d volumes are left: %w", len(list.Items), err)
		}
		return s.wantFolders(0)
	})
}

// wantFolders counts the folders of volumes on all nodes.
func (s *suite) wantFolders(n int) error {
	found, err := filepath.Glob(filepath.Join(cluster.DefaultRoot, name, "nodes", "*", "root/var/lib/kubelet/local-volumes", "*"))
	if err != nil || len(found) != n {
		return fmt.Errorf("folders %v, want %d: %v", found, n, err)
	}
	return nil
}

// apply applies a manifest.
func (s *suite) apply(manifest string) {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "manifest.yaml")
	if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.ctl("apply", "-f", file)
}
