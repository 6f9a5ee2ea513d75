package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// extensionName marks the entries that belong to a local cluster.
const extensionName = "coracle.dev/local-cluster"

// extension is the content of the mark: which cluster the entry is for, and
// what to put back when the cluster goes.
type extension struct {
	Kind string `json:"kind"`
	// Folder is the cluster's, so that a cluster of the same name elsewhere
	// is told apart.
	Folder string `json:"folder"`
	// PreviousContext was current before this one.
	PreviousContext string `json:"previousContext,omitempty"`
	// MadeFile says that there was no file before.
	MadeFile bool `json:"madeFile,omitempty"`
}

// kubeconfigFile is the user's kubeconfig, by kubectl's rules.
func (m *Machine) kubeconfigFile() (string, error) {
	file := m.Kubeconfig
	if file == "" {
		file = clientcmd.NewDefaultPathOptions().GetDefaultFilename()
	}
	if file == "" {
		return "", errors.New("neither $KUBECONFIG nor a home folder says where the kubeconfig is: set KUBECONFIG")
	}
	file, err := filepath.Abs(file)
	if err != nil {
		return "", fmt.Errorf("find the kubeconfig: %w", err)
	}
	// A link is followed, so that replacing the file keeps the link.
	if target, err := filepath.EvalSymlinks(file); err == nil {
		return target, nil
	}
	return file, nil
}

func readKubeconfig(file string) (*clientcmdapi.Config, bool, error) {
	cfg, err := clientcmd.LoadFromFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return clientcmdapi.NewConfig(), false, nil
	}
	if err != nil {
		return nil, true, fmt.Errorf("kubeconfig %s cannot be read, so it is left as it is (repair it, or set KUBECONFIG to another file): %w", file, err)
	}
	return cfg, true, nil
}

// ours returns the mark of a context that belongs to the cluster in folder f.
func ours(cfg *clientcmdapi.Config, f folder, name string) (extension, bool) {
	c := cfg.Contexts[name]
	if c == nil {
		return extension{}, false
	}
	raw, ok := c.Extensions[extensionName].(*runtime.Unknown)
	if !ok {
		return extension{}, false
	}
	var e extension
	err := json.Unmarshal(raw.Raw, &e)
	return e, err == nil && e.Folder == string(f)
}

// checkContext refuses a name that means another cluster in the kubeconfig.
func checkContext(file string, f folder, name string) error {
	cfg, _, err := readKubeconfig(file)
	if err != nil {
		return err
	}
	_, mine := ours(cfg, f, name)
	if cfg.Contexts[name] != nil && !mine {
		return fmt.Errorf("kubeconfig %s has a context %q of another cluster: choose another name for this one, or set KUBECONFIG to another file", file, name)
	}
	return nil
}

// IsLocal says that a context is that of a local cluster.
func IsLocal(c *clientcmdapi.Context) bool {
	return c != nil && c.Extensions[extensionName] != nil
}

func (b *boot) kubeconfigStep() step {
	return step{
		name: "Write the kubeconfig",
		done: func(context.Context) (bool, error) { return b.s.Kubeconfig == "", nil },
		do:   func(ctx context.Context) error { return mergeContext(ctx, b.f, b.s) },
		undo: func(ctx context.Context) error { return removeContext(ctx, b.s.Kubeconfig, b.f, b.s.Name) },
	}
}

// mergeContext puts the cluster's context into the user's kubeconfig and makes
// it current. All other entries stay.
func mergeContext(ctx context.Context, f folder, s *Spec) error {
	admin, err := contextConfig(f, s.Name)
	if err != nil {
		return err
	}
	return modifyKubeconfig(ctx, s.Kubeconfig, func(cfg *clientcmdapi.Config, existed bool) error {
		mark, mine := ours(cfg, f, s.Name)
		if cfg.Contexts[s.Name] != nil && !mine {
			return fmt.Errorf("kubeconfig %s has a context %q of another cluster", s.Kubeconfig, s.Name)
		}
		if !mine {
			mark = extension{Kind: "LocalCluster", Folder: string(f), PreviousContext: cfg.CurrentContext, MadeFile: !existed}
		}
		raw, err := json.Marshal(mark)
		if err != nil {
			return err
		}
		c := admin.Contexts[s.Name]
		c.Extensions = map[string]runtime.Object{extensionName: &runtime.Unknown{Raw: raw, ContentType: runtime.ContentTypeJSON}}
		cfg.Clusters[s.Name] = admin.Clusters[s.Name]
		cfg.AuthInfos[s.Name] = admin.AuthInfos[s.Name]
		cfg.Contexts[s.Name] = c
		cfg.CurrentContext = s.Name
		return nil
	})
}

// refreshContext puts the cluster's authority and the administrator's certificate,
// which are others now, into the user's kubeconfig. One from which the user has
// taken the cluster is left alone.
func refreshContext(ctx context.Context, f folder, s *Spec) error {
	admin, err := contextConfig(f, s.Name)
	if err != nil {
		return err
	}
	return modifyKubeconfig(ctx, s.Kubeconfig, func(cfg *clientcmdapi.Config, _ bool) error {
		if _, mine := ours(cfg, f, s.Name); mine {
			cfg.Clusters[s.Name], cfg.AuthInfos[s.Name] = admin.Clusters[s.Name], admin.AuthInfos[s.Name]
		}
		return nil
	})
}

// removeContext takes the cluster's entries out again. Entries of another
// cluster of the same name stay, and so does a file that is not ours to remove.
func removeContext(ctx context.Context, file string, f folder, name string) error {
	if file == "" {
		return nil
	}
	cfg, existed, err := readKubeconfig(file)
	if err != nil || !existed {
		return err
	}
	if _, mine := ours(cfg, f, name); !mine {
		return nil
	}
	remove := false
	err = modifyKubeconfig(ctx, file, func(cfg *clientcmdapi.Config, _ bool) error {
		mark, mine := ours(cfg, f, name)
		if !mine {
			return nil
		}
		delete(cfg.Clusters, name)
		delete(cfg.AuthInfos, name)
		delete(cfg.Contexts, name)
		if cfg.CurrentContext == name {
			cfg.CurrentContext = ""
			if cfg.Contexts[mark.PreviousContext] != nil {
				cfg.CurrentContext = mark.PreviousContext
			}
		}
		remove = mark.MadeFile && len(cfg.Clusters)+len(cfg.AuthInfos)+len(cfg.Contexts) == 0
		return nil
	})
	if err != nil || !remove {
		return err
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the empty kubeconfig: %w", err)
	}
	_ = os.Remove(filepath.Dir(file)) // stays when anything else is in it
	return nil
}

// contextConfig is the administrator's kubeconfig with all names changed to
// the cluster's.
func contextConfig(f folder, name string) (*clientcmdapi.Config, error) {
	admin, err := clientcmd.LoadFromFile(f.adminKubeconfig())
	if err != nil {
		return nil, fmt.Errorf("read the administrator's kubeconfig: %w", err)
	}
	if err := clientcmdapi.FlattenConfig(admin); err != nil {
		return nil, fmt.Errorf("read the administrator's kubeconfig: %w", err)
	}
	c := admin.Contexts[admin.CurrentContext]
	if c == nil || admin.Clusters[c.Cluster] == nil || admin.AuthInfos[c.AuthInfo] == nil {
		return nil, fmt.Errorf("the administrator's kubeconfig %s has no usable current context", f.adminKubeconfig())
	}
	out := clientcmdapi.NewConfig()
	out.Clusters[name] = admin.Clusters[c.Cluster].DeepCopy()
	out.Clusters[name].LocationOfOrigin = ""
	out.AuthInfos[name] = admin.AuthInfos[c.AuthInfo].DeepCopy()
	out.AuthInfos[name].LocationOfOrigin = ""
	out.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	out.CurrentContext = name
	return out, nil
}

// KubeconfigOf returns a kubeconfig, as YAML, with the cluster's context alone.
func (m *Machine) KubeconfigOf(name string) ([]byte, error) {
	f := m.folder(name)
	if _, err := f.load(); err != nil {
		return nil, err
	}
	cfg, err := contextConfig(f, name)
	if err != nil {
		return nil, err
	}
	data, err := clientcmd.Write(*cfg)
	if err != nil {
		return nil, fmt.Errorf("write kubeconfig: %w", err)
	}
	return data, nil
}

// modifyKubeconfig changes a kubeconfig in one step under the lock that
// kubectl takes as well. A file that fn leaves as it was is not written.
func modifyKubeconfig(ctx context.Context, file string, fn func(cfg *clientcmdapi.Config, existed bool) error) error {
	if err := makeDirLikeParent(filepath.Dir(file)); err != nil {
		return err
	}
	unlock, err := lockKubeconfig(ctx, file)
	if err != nil {
		return err
	}
	defer unlock()
	cfg, existed, err := readKubeconfig(file)
	if err != nil {
		return err
	}
	before := cfg.DeepCopy()
	if err := fn(cfg, existed); err != nil {
		return err
	}
	if existed && reflect.DeepEqual(before, cfg) {
		return nil
	}
	data, err := clientcmd.Write(*cfg)
	if err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	like, mode := filepath.Dir(file), fs.FileMode(0o600)
	if st, err := os.Stat(file); err == nil {
		like, mode = file, st.Mode().Perm()
	}
	uid, gid := ownerOf(like)
	if err := writeFile(file, data, mode); err != nil {
		return err
	}
	return chown(file, uid, gid)
}

// lockKubeconfig makes the lock file that kubectl and client-go use.
func lockKubeconfig(ctx context.Context, file string) (unlock func(), err error) {
	lock := file + ".lock"
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		fd, err := os.OpenFile(lock, os.O_CREATE|os.O_EXCL, 0)
		if err == nil {
			fd.Close()
			return func() { _ = os.Remove(lock) }, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("lock the kubeconfig: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("kubeconfig %s is locked by another program: if none is running, remove %s", file, lock)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// makeDirLikeParent makes a folder that belongs to its parent's owner, for
// under sudo the kubeconfig must stay the user's.
func makeDirLikeParent(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the kubeconfig's folder: %w", err)
	}
	uid, gid := ownerOf(filepath.Dir(dir))
	return chown(dir, uid, gid)
}

func ownerOf(path string) (uid, gid int) {
	st, err := os.Stat(path)
	if err != nil {
		return os.Getuid(), os.Getgid()
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return os.Getuid(), os.Getgid()
	}
	return int(sys.Uid), int(sys.Gid)
}

func chown(path string, uid, gid int) error {
	if err := os.Chown(path, uid, gid); err != nil {
		return fmt.Errorf("give %s back to its owner: %w", path, err)
	}
	return nil
}
