package publisher_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"nimble-bridge/poller"
	"nimble-bridge/publisher"
)

// limitedServer is a server with a user "bridge" who may do everything but publish or subscribe to the given subjects.
func limitedServer(t *testing.T, publish, subscribe string) *natsserver.Server {
	t.Helper()
	denied := &natsserver.Permissions{}
	if publish != "" {
		denied.Publish = &natsserver.SubjectPermission{Deny: []string{publish}}
	}
	if subscribe != "" {
		denied.Subscribe = &natsserver.SubjectPermission{Deny: []string{subscribe}}
	}
	return rawServer(t, func(o *natsserver.Options) {
		o.Users = []*natsserver.User{{Username: "operator", Password: "secret"}, {Username: "bridge", Password: "secret", Permissions: denied}}
	})
}

// TestEveryMissingPermissionIsNamed denies the bridge's user one thing at a time. The operation that needs it fails, soon and with the subject in the error.
func TestEveryMissingPermissionIsNamed(t *testing.T) {
	rejection := []poller.Rejection{{Reason: "not a JSON object", Record: []byte(`"x"`), Observed: epoch}}
	open := func(context.Context, *publisher.Publisher) error { return nil } // Nothing but that.
	load := func(ctx context.Context, p *publisher.Publisher) error { return p.Load(ctx, func(poller.Known) {}) }
	save := func(ctx context.Context, p *publisher.Publisher) error {
		return p.SaveProgress(ctx, poller.Progress{FirstMet: epoch, Settled: epoch})
	}
	update := func(ctx context.Context, p *publisher.Publisher) error {
		_, err := p.Append(ctx, []poller.Change{changeOf(poller.Updated, "a1", 2, 1)})
		return err
	}
	batch := func(ctx context.Context, p *publisher.Publisher) error {
		_, err := p.Append(ctx, []poller.Change{changeOf(poller.Created, "c3", 1, 0), changeOf(poller.Updated, "a1", 2, 1)})
		return err
	}
	lease := func(ctx context.Context, p *publisher.Publisher) error {
		l, err := p.Lease(ctx, "me", time.Second)
		if err != nil {
			return err
		}
		ctx, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() {
			done <- l.Run(ctx, func(context.Context) error { return errors.New("the lease was taken") }, nil)
		}()
		for l.Err() == nil && ctx.Err() == nil {
			time.Sleep(10 * time.Millisecond)
		}
		err = l.Err()
		stop()
		if ended := <-done; ended != nil {
			return ended
		}
		return err
	}
	tests := []struct {
		name, publish, subscribe string
		// anew says that nothing is there yet.
		anew bool
		do   func(context.Context, *publisher.Publisher) error
		// want is what the error names; the subject that is denied if it is empty.
		want string
	}{
		{name: "to receive answers", subscribe: publisher.InboxPrefix + ".>", do: open, want: publisher.InboxPrefix + "."},
		{name: "to ask for the account", publish: "$JS.API.INFO", do: open},
		{name: "to look at the stream", publish: "$JS.API.STREAM.INFO.NIMBLE", do: open},
		{name: "to look at the bucket", publish: "$JS.API.STREAM.INFO.KV_nimble-contacts", do: open},
		{name: "to look at the state", publish: "$JS.API.STREAM.INFO.KV_nimble-bridge", do: open},
		{name: "to create the stream", publish: "$JS.API.STREAM.CREATE.NIMBLE", anew: true, do: open},
		{name: "to create the bucket", publish: "$JS.API.STREAM.CREATE.KV_nimble-contacts", anew: true, do: open},
		{name: "to read the bucket's last message", publish: "$JS.API.STREAM.MSG.GET.KV_nimble-contacts", do: load},
		{name: "to read the stream's last message", publish: "$JS.API.STREAM.MSG.GET.NIMBLE", do: load},
		{name: "to read the bucket", publish: "$JS.API.CONSUMER.CREATE.KV_nimble-contacts.>", do: load, want: "$JS.API.CONSUMER.CREATE.KV_nimble-contacts."},
		{name: "to read the bucket's messages", publish: "$JS.API.CONSUMER.MSG.NEXT.KV_nimble-contacts.*", do: load, want: "$JS.API.CONSUMER.MSG.NEXT.KV_nimble-contacts."},
		{name: "to publish events", publish: "nimble.acme.contact.>", do: update, want: "nimble.acme.contact.updated.a1"},
		{name: "to publish one kind of event", publish: "nimble.acme.contact.created.*", do: batch, want: "nimble.acme.contact.created.c3"},
		{name: "to publish the last of a batch", publish: "nimble.acme.contact.updated.*", do: batch, want: "nimble.acme.contact.updated.a1"},
		{name: "to publish notices", publish: "nimble.acme.bridge.*", do: func(ctx context.Context, p *publisher.Publisher) error {
			return p.Reject(ctx, rejection)
		}, want: "nimble.acme.bridge.rejected"},
		{name: "to read the state", publish: "$JS.API.STREAM.MSG.GET.KV_nimble-bridge", do: save},
		{name: "to save the progress", publish: "$KV.nimble-bridge.acme.*", do: save, want: "$KV.nimble-bridge.acme.progress"},
		{name: "to take the lease", publish: "$KV.nimble-bridge.acme.leader", do: lease},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // A missing permission shows as an answer that does not come.
			srv := limitedServer(t, tt.publish, tt.subscribe)
			if !tt.anew {
				p, err := tryOpen(t, connect(t, publisher.ConnectConfig{InProcess: srv, User: "operator", Password: "secret"}))
				if err != nil {
					t.Fatal(err)
				}
				appendAll(t, p, changeOf(poller.Snapshot, "a1", 1, 0), changeOf(poller.Snapshot, "b2", 1, 0))
				bucketHas(t, p.JetStream(), 2)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			conn := connect(t, publisher.ConnectConfig{InProcess: srv, User: "bridge", Password: "secret"})
			for attempt := range 2 { // The server complains of a subscription once, and the second time it must be known still.
				p, err := tryOpen(t, conn, func(c *publisher.Config) { c.AckTimeout, c.Patience = 300*time.Millisecond, time.Hour })
				if err == nil {
					err = tt.do(ctx, p)
				}
				want := tt.want
				if want == "" {
					want = tt.publish + tt.subscribe
				}
				if _, ok := errors.AsType[*publisher.PermissionError](err); !ok || !strings.Contains(err.Error(), want) {
					t.Errorf("attempt %d: error %v, want a missing permission that names %s", attempt+1, err, want)
				}
			}
		})
	}
}

// TestWhatIsNotNeededMayBeDenied denies what only saves the server some work, or the bridge some time.
func TestWhatIsNotNeededMayBeDenied(t *testing.T) {
	for name, subject := range map[string]string{
		"to remove its consumers": "$JS.API.CONSUMER.DELETE.>",
		"to watch the lease":      "$JS.API.CONSUMER.CREATE.KV_nimble-bridge.>",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := limitedServer(t, subject, "")
			conn := connect(t, publisher.ConnectConfig{InProcess: srv, User: "bridge", Password: "secret"})
			p, err := tryOpen(t, conn, func(c *publisher.Config) { c.AckTimeout = 300 * time.Millisecond })
			if err != nil {
				t.Fatal(err)
			}
			appendAll(t, p, changeOf(poller.Snapshot, "a1", 1, 0))
			if got := load(t, p); len(got) != 1 {
				t.Errorf("known: %v", got)
			}
			var leases [2]*publisher.Lease
			for i, holder := range []string{"first", "second"} {
				if leases[i], err = p.Lease(t.Context(), holder, time.Second); err != nil {
					t.Fatal(err)
				}
			}
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan error)
			leads := make(chan struct{})
			go func() {
				done <- leases[0].Run(ctx, func(ctx context.Context) error {
					close(leads)
					<-ctx.Done()
					return nil
				}, nil)
			}()
			await(t, "leading", leads)
			took := make(chan error, 1)
			go func() {
				took <- leases[1].Run(t.Context(), func(context.Context) error { return context.Canceled }, nil)
			}()
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if err := await(t, "taking over", took); !errors.Is(err, context.Canceled) {
				t.Errorf("the standby ends with %v", err)
			}
		})
	}
}
