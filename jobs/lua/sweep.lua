-- Looks after the active run. in: worker. out: {what, run id}: 'none' | 'fine' | 'enqueued' | 'orphan'
-- ('orphan': nobody walks it and there is no queue; the caller may walk it here)
if a.worker then  -- the caller is an RQ worker: it is there
  call('ZADD', K.workers, ms(now), a.worker)
  call('EXPIRE', K.workers, 86400)
end
local active = call('GET', K.active)
local status = active and call('HGET', K.run .. active, 'status')
if status ~= 'queued' and status ~= 'running' then
  call('DEL', K.active)
  return { 'none', '' }
end
keep(active)
if status == 'running' and #live_walkers(active) > 0 then return { 'fine', active } end
if C.use_queue == 0 then return { 'orphan', active } end
return { ensure_job(active) and 'enqueued' or 'fine', active }
