package cluster

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"text/template"

	"golang.org/x/sys/unix"
)

const (
	// runtimeSocket is containerd's socket as seen in a node.
	runtimeSocket = "/run/containerd/containerd.sock"
	// cniBinDir is where the distribution's package puts the CNI plugins.
	cniBinDir  = "/usr/lib/cni"
	cniConfDir = "/etc/cni/net.d"
)

// containerdSettings fill the template of a node's containerd configuration.
type containerdSettings struct {
	PauseImage  string
	Snapshotter string
	Socket      string
	CNIBinDir   string
	CNIConfDir  string
	// RestrictOOMScore is set where this machine's root may not lower an OOM
	// score; runc fails on a negative one there.
	RestrictOOMScore bool
}

// AppArmor profiles are the host's, not a node's: loading them from a node
// would leave them behind.
var containerdTemplate = template.Must(template.New("containerd").Parse(`version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing",
]

[grpc]
  address = {{printf "%q" .Socket}}

[debug]
  level = "info"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = {{printf "%q" .PauseImage}}
  restrict_oom_score_adj = {{.RestrictOOMScore}}
  disable_apparmor = true
  enable_selinux = false
  tolerate_missing_hugetlb_controller = true
  disable_hugetlb_controller = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = {{printf "%q" .Snapshotter}}
  default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = {{printf "%q" .CNIBinDir}}
  conf_dir = {{printf "%q" .CNIConfDir}}

[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "/etc/containerd/certs.d"
`))

func containerdConfig(s containerdSettings) (string, error) {
	var b strings.Builder
	if err := containerdTemplate.Execute(&b, s); err != nil {
		return "", fmt.Errorf("write containerd configuration: %w", err)
	}
	return b.String(), nil
}

// mayLowerOOMScore reports whether this process has CAP_SYS_RESOURCE.
func mayLowerOOMScore() (bool, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false, fmt.Errorf("read capabilities: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			if err != nil {
				return false, fmt.Errorf("read capabilities: %w", err)
			}
			return set&(1<<unix.CAP_SYS_RESOURCE) != 0, nil
		}
	}
	return false, fmt.Errorf("read capabilities: /proc/self/status names none")
}

// snapshotterFor returns the fastest snapshotter that works for a containerd
// whose root lies in dir: overlayfs cannot lie on another overlayfs, which is
// what dir is on inside many containers.
func snapshotterFor(dir string) string {
	probe, err := os.MkdirTemp(dir, ".overlay-")
	if err != nil {
		return "native"
	}
	defer os.RemoveAll(probe)
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if os.Mkdir(probe+"/"+d, 0o755) != nil {
			return "native"
		}
	}
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", probe)
	if unix.Mount("overlay", probe+"/merged", "overlay", 0, options) != nil {
		return "native"
	}
	if unix.Unmount(probe+"/merged", unix.MNT_DETACH) != nil {
		return "native"
	}
	return "overlayfs"
}
