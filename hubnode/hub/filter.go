package hub

import "github.com/switchboardhub/switchboard/wire"

// allPass reports whether a filter lets all artifacts of a frame pass.
func allPass(filter Filter, f wire.Frame) bool {
	a := wire.Artifact{From: string(f.From()), Topic: string(f.Target())}
	for r := wire.NewRunReader(f.Body()); ; {
		ok, err := r.Next(&a)
		if !ok || err != nil { // runs were checked when they came in
			return err == nil
		}
		if !filter(&a) {
			return false
		}
	}
}

// sift returns those artifacts of a published frame that are within the limit on their
// size and that the topic's filter, which may be nil, lets pass. It tells the publisher of
// the others before the rest is answered, or answers the frame when it returns nil: there
// is no rest. So they stay in order, and nobody has to send them once more.
func (c *Client) sift(in *intake, f wire.Frame, filter Filter) *parcel {
	var (
		run             wire.Run
		large, filtered []int
		tooLarge        error
	)
	limit := in.hub.settings.Load().MaxArtifact
	a := wire.Artifact{From: string(f.From()), Topic: string(f.Target())}
	r := wire.NewRunReader(f.Body())
	for i := range f.Count() {
		if ok, err := r.Next(&a); !ok || err != nil { // runs were checked when they came in
			break
		}
		if filter != nil && !filter(&a) {
			filtered = append(filtered, i)
		} else if err := run.Append(&a, limit); err != nil {
			large, tooLarge = append(large, i), err
		}
	}
	in.hub.metrics.dropped(dropFiltered, len(filtered))
	switch {
	case run.Count() > 0:
		c.refuseSome(in, f, large, tooLarge)
		c.refuseSome(in, f, filtered, refused(a.Topic))
		h := f.Header()
		h.Count = uint16(run.Count())
		return &parcel{frame: wire.AppendFrame(nil, h, f.Target(), f.From(), run.Body())}
	case len(filtered) > 0:
		c.refuseSome(in, f, large, tooLarge)
		c.refuse(in, f.Ref(), refused(a.Topic))
	default:
		c.refuse(in, f.Ref(), tooLarge)
	}
	return nil
}

// refuseSome tells a publisher that these artifacts of a frame are refused, if there are
// any. The others hear by the frame's answer.
func (c *Client) refuseSome(in *intake, f wire.Frame, artifacts []int, why error) {
	if len(artifacts) == 0 {
		return
	}
	fault := wire.FaultOf(why, wire.CodeInvalidRequest)
	fault.Artifacts = artifacts
	c.answer(in, wire.AppendControl(nil, wire.Header{Kind: wire.KindError, Flags: wire.FlagEach, Ref: f.Ref()}, "", fault))
}

// passing splits a frame into the runs of consecutive artifacts that pass a
// filter; the whole frame is returned as it is when all do.
func (in *intake) passing(filter Filter, p *parcel) []*parcel {
	a := wire.Artifact{From: string(p.frame.From()), Topic: string(p.frame.Target()), Sequence: p.seq}
	var (
		parts []*parcel
		run   wire.Run
		first wire.Sequence
		count int
	)
	end := func() {
		if run.Count() > 0 {
			h := wire.Header{Kind: wire.KindPublish, Count: uint16(run.Count())}
			parts = append(parts, &parcel{frame: wire.AppendFrame(nil, h, p.frame.Target(), p.frame.From(), run.Body()), seq: first})
			run.Reset()
		}
	}
	for r := wire.NewRunReader(p.frame.Body()); ; count++ {
		ok, err := r.Next(&a)
		if !ok || err != nil { // runs were checked when they came in
			break
		}
		if p.seq != 0 {
			a.Sequence = p.seq + wire.Sequence(count)
		}
		switch {
		case !filter(&a):
			end()
		case run.Count() == 0:
			first = a.Sequence
			fallthrough
		default:
			_ = run.Append(&a, len(p.frame)) // it was within the limits before
		}
	}
	if run.Count() == p.frame.Count() {
		return []*parcel{p}
	}
	end()
	return parts
}

// splits reports whether the members are chosen for each artifact of a frame by
// itself: they have filters, which may differ.
func (g *group) splits(p *parcel) bool { return g.filtered && p.frame.Count() > 1 }

// singles returns a parcel for each artifact.
func singles(p *parcel) []*parcel {
	var (
		all []*parcel
		run wire.Run
		a   wire.Artifact
	)
	r := wire.NewRunReader(p.frame.Body())
	for seq := p.seq; ; {
		ok, err := r.Next(&a)
		if !ok || err != nil { // runs were checked when they came in
			return all
		}
		run.Reset()
		_ = run.Append(&a, len(p.frame)) // it was within the limits before
		h := wire.Header{Kind: wire.KindPublish, Count: 1}
		all = append(all, &parcel{frame: wire.AppendFrame(nil, h, p.frame.Target(), p.frame.From(), run.Body()), seq: seq})
		if seq != 0 {
			seq++
		}
	}
}
