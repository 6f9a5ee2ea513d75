package plugins

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const (
	// infoTimeout and notifyTimeout bound the two calls to a plugin's socket.
	infoTimeout   = 5 * time.Second
	notifyTimeout = 5 * time.Second
	// registerTimeout bounds what a Handler takes to register a plugin.
	registerTimeout = 3 * time.Minute
	firstRetry      = 100 * time.Millisecond
	maxRetry        = time.Minute
	// maxMessage bounds one answer, in bytes.
	maxMessage = 1 << 20
)

// follower has the plugin at one socket registered as long as the socket is there.
type follower struct {
	cfg  *Config
	path string
	id   identity
	// end ends run, with the reason.
	end context.CancelCauseFunc
	// done is closed when run has ended.
	done chan struct{}
	// have is the plugin that is registered, nil if none is. It is run's until
	// done is closed.
	have *Plugin
}

// run registers the plugin and waits for its end. A socket that took the place
// of another begins with what that one had registered.
func (f *follower) run(ctx context.Context) {
	for delay := firstRetry; ctx.Err() == nil; delay = min(2*delay, maxRetry) {
		err := f.register(ctx)
		if err == nil {
			<-ctx.Done()
			break
		}
		if ctx.Err() == nil {
			f.cfg.Log.Warn("a plugin is not registered, will ask it again", "socket", f.path, "error", err)
		}
		timer := f.cfg.Clock.NewTimer(delay)
		select {
		case <-ctx.Done():
		case <-timer.C():
		}
		timer.Stop()
	}
	if errors.Is(context.Cause(ctx), errGone) {
		f.drop()
	}
}

// drop deregisters what is registered.
func (f *follower) drop() {
	if f.have == nil {
		return
	}
	f.cfg.Log.Info("plugin deregistered", "type", f.have.Type, "plugin", f.have.Name, "socket", f.path)
	f.cfg.Handlers[f.have.Type].Deregister(*f.have)
	f.have = nil
}

// register goes once through the protocol.
func (f *follower) register(ctx context.Context) error {
	conn, err := grpc.NewClient("unix:"+f.path, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		return err
	}
	defer conn.Close()
	client := registration.NewRegistrationClient(conn)
	p, err := f.ask(ctx, client)
	if err != nil {
		return fmt.Errorf("asking what it is: %w", err)
	}
	handler := f.cfg.Handlers[p.Type]
	if f.have != nil && (f.have.Type != p.Type || f.have.Name != p.Name) {
		f.drop() // another plugin took the socket's place
	}
	if handler == nil {
		err = fmt.Errorf("this node has no use for plugins of type %q", p.Type)
	} else {
		err = handle(ctx, handler, p)
	}
	if err != nil {
		return errors.Join(err, notify(ctx, client, err))
	}
	f.have = &p
	f.cfg.Log.Info("plugin registered", "type", p.Type, "plugin", p.Name, "socket", f.path)
	return notify(ctx, client, nil)
}

func (f *follower) ask(ctx context.Context, client registration.RegistrationClient) (Plugin, error) {
	ctx, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()
	info, err := client.GetInfo(ctx, &registration.InfoRequest{})
	if err != nil {
		return Plugin{}, err
	}
	p := Plugin{Type: info.GetType(), Name: info.GetName(), Endpoint: info.GetEndpoint(), Versions: info.GetSupportedVersions()}
	if p.Endpoint == "" {
		p.Endpoint = f.path
	}
	return p, nil
}

func handle(ctx context.Context, handler Handler, p Plugin) error {
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	return handler.Register(ctx, p)
}

// notify tells the plugin what came of it.
func notify(ctx context.Context, client registration.RegistrationClient, result error) error {
	ctx, cancel := context.WithTimeout(ctx, notifyTimeout)
	defer cancel()
	status := &registration.RegistrationStatus{PluginRegistered: result == nil}
	if result != nil {
		status.Error = result.Error()
	}
	if _, err := client.NotifyRegistrationStatus(ctx, status); err != nil {
		return fmt.Errorf("telling the plugin what came of its registration: %w", err)
	}
	return nil
}
