-- Looks after the active run and what is to follow an ended one. in: worker, clock (see looked_at).
-- out: {what, run id, follow-up}: 'none' | 'fine' | 'enqueued' | 'orphan' ('orphan': nobody walks it and there is no
-- queue; the caller may walk it here). follow-up: '', or what the caller may do here, as no worker is there for it.
looked_at()
if a.worker then  -- the caller is an RQ worker: it is there
  call('ZADD', K.workers, ms(now), a.worker)
  call('EXPIRE', K.workers, 86400)
end

for _, job in ipairs(call('ZRANGEBYSCORE', K.later, '-inf', ms(now), 'LIMIT', 0, 100)) do
  call('ZREM', K.later, job)
  call('RPUSH', K.queue, job)
end

for _, old in ipairs(call('ZRANGEBYSCORE', K.runs, '-inf', ms(now - C.retention * 1000), 'LIMIT', 0, 100)) do
  if call('EXISTS', K.run .. old) == 0 then call('ZREM', K.runs, old) end
end

local here, name = '', call('ZRANGEBYSCORE', K.follow_up, '-inf', ms(now), 'LIMIT', 0, 1)[1]
local alone = C.use_queue == 0 or call('ZCOUNT', K.workers, ms(now - C.worker_ms), '+inf') == 0
if name and not (alone and (a.worker or a.clock)) then  -- a worker does only what is queued, a clock nothing
  local job = 'follow-up-' .. name
  follow_up(name, C.follow_up_ms)  -- taken up again should whoever does it die
  if alone then here = name
  elseif not call('LPOS', K.queue, job) then enqueue(job, 'Follow up ' .. name, C.follow_up, name) end
end

local active = call('GET', K.active)
local status = active and call('HGET', K.run .. active, 'status')
if status ~= 'queued' and status ~= 'running' then
  call('DEL', K.active)
  return { 'none', '', here }
end
if end_if_cancelled(active) then return { 'none', '', here } end
keep(active)
if status == 'running' and #live_walkers(active) > 0 then return { 'fine', active, here } end
if C.use_queue == 0 then return { 'orphan', active, here } end
return { ensure_job(active) and 'enqueued' or 'fine', active, here }
