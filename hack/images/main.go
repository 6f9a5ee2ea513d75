// Command images builds the project's container images as archives, without a
// container engine: each is a static program in one layer.
//
//	go run ./hack/images --out bin/images
//
// Building again changes nothing unless a program has changed: compilation is
// cached by Go, and the same programs give the same bytes.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"

	"coracle/pkg/image"
)

// recipe makes one archive.
type recipe struct {
	// file is the archive's name without its folder.
	file string
	refs []string
	make func(ctx context.Context) (image.Image, error)
}

var recipes = []recipe{
	{file: "pause.tar", refs: []string{image.PauseRef}, make: func(context.Context) (image.Image, error) {
		return image.Pause(runtime.GOARCH)
	}},
	{file: "busybox.tar", refs: image.BusyboxRefs(), make: func(ctx context.Context) (image.Image, error) {
		return image.Busybox(ctx, "/bin/busybox")
	}},
	{file: "demo-web.tar", refs: []string{"coracle.dev/demo-web:v1"}, make: goProgram("coracle/hack/images/demo-web", "65532:65532")},
	{file: "demo-store.tar", refs: []string{"coracle.dev/demo-store:v1"}, make: goProgram("coracle/hack/images/demo-store", "")},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	out := flag.String("out", "bin/images", "folder for the archives")
	flag.Parse()
	if err := run(ctx, *out); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out string) error {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	for _, r := range recipes {
		img, err := r.make(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", r.file, err)
		}
		var images []image.Named
		for _, ref := range r.refs {
			images = append(images, image.Named{Ref: ref, Image: img})
		}
		file := filepath.Join(out, r.file)
		same, err := unchanged(file, images)
		if err != nil {
			return err
		}
		if same {
			fmt.Printf("%s is up to date\n", file)
			continue
		}
		if err := image.Save(file, images); err != nil {
			return err
		}
		fmt.Printf("%s is written\n", file)
	}
	return nil
}

// unchanged reports whether an archive holds just these images. One that
// cannot be read is made anew.
func unchanged(file string, want []image.Named) (bool, error) {
	a, err := image.Open(file)
	if err != nil {
		return false, nil
	}
	defer a.Close()
	have, err := digests(a.Images)
	if err != nil {
		return false, nil
	}
	wanted, err := digests(want)
	return slices.Equal(have, wanted), err
}

func digests(images []image.Named) ([]string, error) {
	var out []string
	for _, n := range images {
		d, err := n.Image.Digest()
		if err != nil {
			return nil, err
		}
		ref, err := image.Reference(n.Ref)
		if err != nil {
			return nil, err
		}
		out = append(out, ref+"@"+d.String())
	}
	slices.Sort(out)
	return out, nil
}

// goProgram compiles a package statically and reproducibly and makes it an
// image's only file.
func goProgram(pkg, user string) func(ctx context.Context) (image.Image, error) {
	return func(ctx context.Context) (image.Image, error) {
		dir, err := os.MkdirTemp("", "images-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		name := filepath.Base(pkg)
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", filepath.Join(dir, name), pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOFLAGS=")
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("compile %s: %w", pkg, err)
		}
		program, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		return image.Build(image.Spec{
			Files: []image.File{
				{Path: "/" + name, Mode: 0o755, Data: program},
				{Path: "/etc/passwd", Data: []byte("root:x:0:0:root:/:/\nnonroot:x:65532:65532:nonroot:/:/\n")},
				{Path: "/tmp", Dir: true, Mode: 0o777 | os.ModeSticky},
			},
			Entrypoint: []string{"/" + name},
			User:       user,
		})
	}
}
