package etcd

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapToSlog makes a zap logger, which etcd wants, that writes to l.
func zapToSlog(l *slog.Logger) *zap.Logger {
	if l == nil {
		return zap.NewNop()
	}
	return zap.New(newZapCore(l))
}

// zapCore passes entries on. What etcd calls information is of interest only
// to who debugs it.
type zapCore struct {
	log *slog.Logger
	// stopping makes everything debug: a server that is being stopped reports
	// each of its closed connections as an error.
	stopping *atomic.Bool
}

func newZapCore(l *slog.Logger) *zapCore { return &zapCore{log: l, stopping: &atomic.Bool{}} }

// expected are warnings about what this package does on purpose: there is no
// client listener and so nobody to authenticate.
var expected = map[string]bool{
	"Running http and grpc server on single port. This is not recommended for production.": true,
	"simple token is not cryptographically signed":                                         true,
}

// pendingChanges ends raft's complaint about a member that is told to stand for
// election too early; it is told again.
const pendingChanges = "since there are still pending configuration changes to apply"

func slogLevel(level zapcore.Level) slog.Level {
	switch {
	case level >= zapcore.ErrorLevel:
		return slog.LevelError
	case level == zapcore.WarnLevel:
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

func (c *zapCore) Enabled(level zapcore.Level) bool {
	return c.log.Enabled(context.Background(), slogLevel(level))
}

func (c *zapCore) With(fields []zapcore.Field) zapcore.Core {
	return &zapCore{log: c.log.With(attributes(fields)...), stopping: c.stopping}
}

func (c *zapCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	level := slogLevel(e.Level)
	if expected[e.Message] || c.stopping.Load() || strings.HasSuffix(e.Message, pendingChanges) {
		level = slog.LevelDebug
	}
	c.log.Log(context.Background(), level, e.Message, attributes(fields)...)
	return nil
}

func (c *zapCore) Sync() error { return nil }

func attributes(fields []zapcore.Field) []any {
	enc := zapcore.NewMapObjectEncoder()
	out := make([]any, 0, len(fields))
	for _, f := range fields {
		f.AddTo(enc)
	}
	for key, value := range enc.Fields {
		out = append(out, slog.Any(key, value))
	}
	return out
}
