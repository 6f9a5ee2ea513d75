package kubelet

import (
	"bytes"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"coracle/pkg/kubelet/cri"
)

const (
	maxMessage      = 4096 // bytes of a termination message file
	maxMessageLog   = 2048 // bytes of a log that stands in for it
	maxMessageLines = 80
	// maxLogTail bounds what is read of a log to find its last lines.
	maxLogTail = 64 << 10
)

// terminationMessage reads what a container that ended left for its status:
// the file it was given, or, if it failed and asked for that, the end of its
// log. The file belongs to the container, so it may be anything.
func terminationMessage(s *runtimeapi.ContainerStatus) string {
	path := s.GetAnnotations()[cri.AnnotationMessagePath]
	for _, m := range s.GetMounts() {
		if path != "" && m.GetContainerPath() == path {
			if text := readMessage(m.GetHostPath()); text != "" {
				return text
			}
		}
	}
	fallback := s.GetAnnotations()[cri.AnnotationMessagePolicy] == string(corev1.TerminationMessageFallbackToLogsOnError)
	if fallback && s.GetExitCode() != 0 {
		return logTail(s.GetLogPath())
	}
	return ""
}

// openRegular opens a file only if it is a regular one, following no link and
// waiting for no writer.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = os.ErrInvalid
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func readMessage(path string) string {
	f, err := openRegular(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxMessage))
	if err != nil {
		return ""
	}
	return clean(data)
}

// clean makes text out of foreign bytes: valid UTF-8 without control
// characters other than tabs and line ends.
func clean(data []byte) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || r < ' ' && r != '\n' && r != '\t' && r != '\r' || r == 0x7f {
			return -1
		}
		return r
	}, string(data))
}

// logTail returns the last lines of a log in the format of the container
// runtime interface, without their time stamps.
func logTail(path string) string {
	f, err := openRegular(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	skip := max(info.Size()-maxLogTail, 0)
	data, err := io.ReadAll(io.LimitReader(io.NewSectionReader(f, skip, maxLogTail), maxLogTail))
	if err != nil {
		return ""
	}
	lines := bytes.Split(bytes.TrimRight(data, "\n"), []byte("\n"))
	if skip > 0 && len(lines) > 0 {
		lines = lines[1:] // cut in the middle
	}
	if len(lines) > maxMessageLines {
		lines = lines[len(lines)-maxMessageLines:]
	}
	var out []byte
	for _, line := range lines {
		out = append(out, payload(line)...)
	}
	if len(out) > maxMessageLog {
		out = out[len(out)-maxMessageLog:]
	}
	return clean(out)
}

// payload strips "TIME STREAM TAG " from a log line, and ends it unless the
// tag says that the line goes on.
func payload(line []byte) []byte {
	fields := bytes.SplitN(line, []byte(" "), 4)
	if len(fields) < 4 {
		return nil
	}
	if bytes.HasPrefix(fields[2], []byte("P")) {
		return fields[3]
	}
	return append(bytes.Clone(fields[3]), '\n')
}
