package image

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// BusyboxRefs returns the references under which a cluster knows the image
// that Busybox makes.
func BusyboxRefs() []string {
	return []string{"docker.io/library/busybox:latest", "docker.io/library/busybox:1"}
}

// Busybox makes an image from a static busybox program of this machine, for
// example the distribution's /bin/busybox of the package busybox-static, with
// a link for each applet.
func Busybox(ctx context.Context, program string) (v1.Image, error) {
	data, err := os.ReadFile(program)
	if err != nil {
		return nil, fmt.Errorf("make the busybox image (the package busybox-static has the program): %w", err)
	}
	if err := staticELF(data); err != nil {
		return nil, fmt.Errorf("make the busybox image from %s (install the package busybox-static): %w", program, err)
	}
	applets, err := busyboxApplets(ctx, program)
	if err != nil {
		return nil, err
	}
	files := []File{
		{Path: "/bin/busybox", Mode: 0o755, Data: data},
		{Path: "/etc/passwd", Data: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")},
		{Path: "/etc/group", Data: []byte("root:x:0:\nnogroup:x:65534:\n")},
		{Path: "/root", Dir: true, Mode: 0o700},
		{Path: "/tmp", Dir: true, Mode: 0o777 | os.ModeSticky},
		{Path: "/var/www", Dir: true},
		{Path: "/home", Dir: true},
		{Path: "/usr/bin/env", Link: "/bin/busybox"},
	}
	for _, applet := range applets {
		files = append(files, File{Path: "/bin/" + applet, Link: "busybox"})
	}
	return Build(Spec{
		Files: files,
		Cmd:   []string{"sh"},
		Env:   []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	})
}

func busyboxApplets(ctx context.Context, program string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list the applets of %s: %w", program, err)
	}
	var applets []string
	for _, name := range strings.Fields(string(out)) {
		if name != "busybox" && name == path.Base(name) {
			applets = append(applets, name)
		}
	}
	if len(applets) == 0 {
		return nil, fmt.Errorf("list the applets of %s: it names none", program)
	}
	return applets, nil
}

// staticELF refuses programs that need a loader, which an image of one
// program does not hold.
func staticELF(data []byte) error {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("not an ELF program: %w", err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("the program is dynamically linked")
		}
	}
	return nil
}
