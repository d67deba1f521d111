package hub

import "github.com/switchboardhub/switchboard/wire"

// allPass reports whether a filter lets all artifacts of a frame pass: they
// share an acknowledgement, so they share their fate.
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
