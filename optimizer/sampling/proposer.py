"""Which point to try next (prototype)."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import qmc

from optimizer.sampling.kernel import Kernel, Matrix, fitted
from optimizer.sampling.lattice import LatticeAxis, Points
from optimizer.sampling.posterior import Posterior
from optimizer.sampling.room import Room


@dataclass
class Options:
    nodes: int = 16
    n0: int = 4
    growth: float = 1.15
    fit_max: int = 200
    pool_max: int = 8000
    damp: float = 0.7
    by_price: bool = True
    amortise: bool = True
    law: bool = True
    shared_goals: bool = True
    margin: float = 0.1
    alpha: float = 1.0
    design: str = 'var'
    every: int = 0
    engine_axis: bool = True
    kappa: float = 1.0
    luck: float = 0.0
    joint: bool = False
    amort_k: int = 12


class Proposer:
    """points: (N,A) all allowed. in_flight: log10(batch*conc) (N,) or None"""

    def __init__(self, axes, points, *, goals, shared, law=None, in_flight=None, seed=0, options=None):
        self.axes = axes
        self.points = points
        self.goals = goals  # number of objectives
        self.shared = shared  # tuple of bool
        self.law = law  # (latency objective, throughput objective) or None
        self.in_flight = in_flight
        self.o = options or Options()
        if not self.o.law:
            self.law = None
        if not self.o.shared_goals:
            self.shared = tuple(False for _ in shared)
        self.rng = np.random.default_rng(seed)
        self.seed = seed
        live = [(at, a) for at, a in enumerate(axes) if a.values > 1]
        self.live = live
        self.shared_axes = [(at, a) for at, a in live if a.is_shared]
        sp = [at for at, a in enumerate(axes) if a.is_shared]
        _, self.engine = np.unique(points[:, sp], axis=0, return_inverse=True)
        self.engine = self.engine.ravel()
        self.engines = self.engine.max() + 1
        if self.o.engine_axis and 1 < self.engines < len(points) and len(sp) > 1:
            extra = LatticeAxis(name="engine", values=int(self.engines), is_shared=True)
            self.points = np.concatenate([points, self.engine[:, None].astype(points.dtype)], axis=1)
            live = [*live, (len(axes), extra)]
            self.live = live
        z = qmc.Sobol(goals, seed=seed).random(self.o.nodes)
        self.z = ndtri(np.clip(z, 1e-6, 1 - 1e-6))
        self.fit_at = 0
        self.models = None
        # history
        self.rows = []
        self.values = []
        self.ok = []
        self.prices = []
        self.viol = []

    # ---- observations
    def tell(self, row, cost, ok, price, viol=()):
        """cost: (M,) minimized; nan if not ok"""
        self.rows.append(row)
        self.values.append(cost)
        self.ok.append(ok)
        self.prices.append(price)
        self.viol.append(viol)

    def transform(self, costs, rows):
        t = costs.copy()
        if self.law is not None:
            lat, thr = self.law
            # cost_lat = log lat ; cost_thr = -log thr ; Little: log lat + log thr = in_flight
            t[:, lat] = costs[:, lat] - costs[:, thr] - self.in_flight[rows]
        return t

    def back(self, t, rows):
        """t: (P,S,M)"""
        if self.law is not None:
            lat, thr = self.law
            t = t.copy()
            t[..., lat] = t[..., lat] + t[..., thr] + self.in_flight[rows][:, None]
        return t

    def refit(self):
        rows = np.array(self.rows)
        ok = np.array(self.ok)
        good = rows[ok]
        costs = np.array([v for v, k in zip(self.values, self.ok) if k]).reshape(-1, self.goals)
        t = self.transform(costs, good)
        self.pool = np.arange(len(self.points))
        if len(self.pool) > self.o.pool_max:
            self.pool = np.sort(self.rng.choice(len(self.points), self.o.pool_max, replace=False))
        pts = self.points[self.pool]
        self.posts = []
        for m in range(self.goals):
            axes = self.shared_axes if self.shared[m] else self.live
            x, y = self.points[good], t[:, m]
            if self.shared[m]:
                _, first = np.unique(self.engine[good], return_index=True)
                x, y = x[first], y[first]
            self.posts.append(self.post(axes, x, y, pts))
        self.ok_post = None
        if not ok.all():
            lab = np.where(ok, 1.0, -1.0)
            kernel = fitted(self.live, self.points[rows][-self.o.fit_max:], (lab - .6)[-self.o.fit_max:])
            p = Posterior(kernel, pts, center=0.6, spread=1.0)
            p.observe(self.points[rows], lab)
            self.ok_post = p
        self.nviol = len(self.viol[0])
        self.vposts = []
        if self.nviol and len(good):
            v = np.array([x for x, k in zip(self.viol, self.ok) if k])
            for c in range(self.nviol):
                self.vposts.append(self.post(self.live, self.points[good], v[:, c], pts))
        self.fit_at = len(self.rows)
        self.seen = len(self.rows)

    def post(self, axes, x, y, pts):
        c, s = float(y.mean()), float(y.std())
        s = s if s > 1e-9 else 1e-3
        n = self.o.fit_max
        if len(y) > n:
            at = np.linspace(0, len(y) - 1, n).round().astype(int)
            kernel = fitted(axes, x[at], (y[at] - c) / s)
        else:
            kernel = fitted(axes, x, (y - c) / s)
        p = Posterior(kernel, pts, center=c, spread=s)
        p.observe(x, y)
        return p

    def update(self):
        for i in range(self.seen, len(self.rows)):
            row = self.rows[i]
            x = self.points[[row]]
            if self.ok_post is not None:
                self.ok_post.observe(x, np.array([1.0 if self.ok[i] else -1.0]))
            elif not self.ok[i]:
                self.refit()
                return
            if not self.ok[i]:
                continue
            t = self.transform(np.array([self.values[i]]), np.array([row]))[0]
            known = {self.engine[r] for r, k in zip(self.rows[:i], self.ok[:i]) if k}
            for m, p in enumerate(self.posts):
                if self.shared[m] and self.engine[row] in known:
                    continue
                p.observe(x, t[[m]])
            if self.nviol and not self.vposts:
                self.refit()
                return
            for c, p in enumerate(self.vposts):
                p.observe(x, np.array([self.viol[i][c]]))
        self.seen = len(self.rows)

    def propose(self):
        n = sum(self.ok)
        if n < self.o.n0:
            return self.initial()
        if self.fit_at == 0 or len(self.rows) >= max(self.fit_at + 1, self.fit_at * self.o.growth):
            self.refit()
        else:
            self.update()
        taken = np.zeros(len(self.points), bool)
        taken[self.rows] = True
        free = ~taken[self.pool]
        if not free.any():
            left = np.flatnonzero(~taken)
            return int(self.rng.choice(left)), {}
        cand = np.flatnonzero(free)
        rows = self.pool[cand]
        good = np.array(self.rows)[np.array(self.ok)]
        costs = np.array([v for v, k in zip(self.values, self.ok) if k])
        feas = np.array([all(x <= 0 for x in v) for v, k in zip(self.viol, self.ok) if k])
        mean = np.stack([p.mean for p in self.posts], axis=1)
        sd = np.sqrt(np.stack([p.variance * self.o.kappa ** 2 + self.o.luck * p.noise for p in self.posts], axis=1))
        for m in range(self.goals):
            if self.shared[m]:
                known = dict(zip(self.engine[good], costs[:, m]))
                for e, v in known.items():
                    at = self.engine[self.pool] == e
                    mean[at, m], sd[at, m] = v, 0.0
        pf = np.ones(len(self.pool))
        if self.ok_post is not None:
            pf = ndtr(self.ok_post.mean / np.sqrt(self.ok_post.variance + self.ok_post.noise + 1e-4))
        for p in self.vposts:
            pf = pf * ndtr(-p.mean / np.sqrt(p.variance + 1e-12))
        middle = self.back(mean[:, None, :], self.pool)[:, 0, :]
        frame = costs[feas] if feas.any() else costs
        likely = middle[pf > 0.5]
        frame = np.concatenate([frame, likely]) if len(likely) else frame
        ideal, worst = frame.min(axis=0), frame.max(axis=0)
        width = np.where(worst > ideal, worst - ideal, 1.0) * (1 + self.o.margin)
        room = Room((costs[feas] - ideal) / width)
        m_, s_ = mean[cand], sd[cand]
        # optimistic prune
        low = self.back((m_ - 0)[:, None, :], rows)[:, 0, :] - 2.5 * self.spread(s_)
        hope = room.above((low - ideal) / width) * pf[cand]
        top = np.argsort(-hope)[:2000]
        top = top[hope[top] > 0]
        gain = np.zeros(len(cand))
        if len(top):
            t = m_[top][:, None, :] + s_[top][:, None, :] * self.z[None]
            y = (self.back(t, rows[top]) - ideal) / width
            gain[top] = room.above(y).mean(axis=1) * pf[cand][top]
        if gain.max() <= 1e-9:
            at = int(np.argmax(hope)) if hope.max() > 0 else int(np.argmax(s_.sum(axis=1)))
            return int(rows[at]), {"gain": 0.0}
        own, shared = self.price(rows)
        if self.o.every and len(self.rows) % self.o.every == 0:
            near = gain > 0
            u = np.where(near, s_[:, [m for m in range(self.goals) if not self.shared[m]]].sum(axis=1) * pf[cand], 0)
            at = int(np.argmax(u))
            return int(rows[at]), {"gain": gain[at]}
        if not self.o.by_price:
            at = int(np.argmax(gain))
            return int(rows[at]), {"gain": gain[at]}
        stored = np.isin(self.engine[rows], self.engine[np.array(self.rows)])
        rate = gain / np.where(stored, own, own + shared) ** self.o.alpha
        best = int(np.argmax(rate))
        if self.o.amortise:
            for e in np.unique(self.engine[rows[~stored]]):
                at = np.flatnonzero(self.engine[rows] == e)
                order = at[np.argsort(-gain[at])][:self.o.amort_k]
                g = np.cumsum(gain[order] * self.o.damp ** np.arange(len(order)))
                c = shared[order[0]] + np.cumsum(own[order])
                r = (g / c ** self.o.alpha).max()
                rate[order[0]] = max(rate[order[0]], r)
            best = int(np.argmax(rate))
        return int(rows[best]), {"gain": float(gain[best])}

    def spread(self, s):
        if self.law is None:
            return s
        lat, thr = self.law
        out = s.copy()
        out[:, lat] = s[:, lat] + s[:, thr]
        return out

    def price(self, rows):
        own = np.array([p[1] for p in self.prices])
        first = {}
        for r, p in zip(self.rows, self.prices):
            if p[0] > 0:
                first.setdefault(self.engine[r], (r, p[0]))
        if first:
            fr = np.array([r for r, _ in first.values()])
            fp = np.array([p for _, p in first.values()])
            sh = np.exp(self.ridge(fr, np.log(fp), rows, self.shared_axes))
        else:
            sh = np.zeros(len(rows))
        return np.exp(self.ridge(np.array(self.rows), np.log(np.maximum(own, 1e-9)), rows, self.live)), sh

    def ridge(self, known, y, rows, axes):
        def f(r):
            cols = []
            for at, a in axes:
                cols.append(np.eye(a.values)[self.points[r, at]])
            return np.concatenate(cols, axis=1) if cols else np.zeros((len(r), 1))
        x = f(known)
        m = y.mean()
        w = np.linalg.solve(x.T @ x + 0.3 * np.eye(x.shape[1]), x.T @ (y - m))
        return m + f(rows) @ w

    def initial(self):
        taken = set(self.rows)
        free = np.array([i for i in range(len(self.points)) if i not in taken]) if len(self.points) < 20000 else self.rng.choice(len(self.points), 5000, replace=False)
        if not self.rows:
            # the middle of everything
            pts = self.points[free]
            d = np.zeros(len(free))
            for at, a in self.live:
                if a.is_ordinal:
                    d += (np.array(a.coordinates)[pts[:, at]] - 0.5) ** 2
            d += 1e-3 * self.rng.random(len(free))
            return int(free[np.argmin(d)]), {}
        if self.o.design == 'random':
            return int(self.rng.choice(free)), {}
        kernel = Kernel(axes=tuple(self.live), scale=1.0, noise=1e-3, weights=tuple(0.5 for _ in self.live), lengths=tuple(0.7 if a.is_ordinal else 0.0 for _, a in self.live))
        p = Posterior(kernel, self.points[free], center=0, spread=1)
        p.observe(self.points[self.rows], np.zeros(len(self.rows)))
        v = p.variance + 1e-6 * self.rng.random(len(free))
        return int(free[np.argmax(v)]), {}
